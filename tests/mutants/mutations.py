"""The small changes of meaning that can be made to a source file."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_DROPPED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Return, ast.Raise, ast.Continue, ast.Break, ast.Delete)
_LOGS = {"log", "_log", "logger", "_logger", "logging", "warnings"}

_BLOCKS = ("body", "orelse", "finalbody")

#: The name of the function, the statement, and the node of it or the statement itself.
Place = tuple[str, ast.stmt, ast.AST]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: its place, and the text there."""

    path: str
    function: str
    line: int
    #: The first line of the statement that it is in.
    statement: int
    operator: str
    text: str
    #: Its number among mutants with the same function, operator and text of the line.
    occurrence: int
    tree: ast.Module
    node: ast.AST

    @property
    def name(self) -> tuple[str, str, str, int]:
        """Its identity, wherever the function is defined."""
        return self.function, self.text, self.operator, self.occurrence

    def source(self) -> str:
        """Return the whole file with the change."""
        memo: dict[int, Any] = {}
        whole = copy.deepcopy(self.tree, memo)
        _change(whole, memo[id(self.node)])
        return ast.unparse(ast.fix_missing_locations(whole))

    def __str__(self) -> str:
        which = f" ({self.occurrence + 1})" if self.occurrence else ""
        return f"{self.path}:{self.line} {self.function}: {self.operator}{which}: {self.text}"


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a file, in order."""
    tree = ast.parse(source)
    lines = source.splitlines()
    found: list[Mutant] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for function, statement, node in _in_scope("", tree.body):
        operator = _operator(node, statement)
        if operator:
            line = getattr(node, "lineno", statement.lineno)
            key = (function, lines[line - 1].strip(), operator)
            found.append(Mutant(path, function, line, statement.lineno, operator, key[1], seen[key], tree, node))
            seen[key] += 1
    return found


def mutants_below(root: Path, folders: Iterable[str]) -> list[Mutant]:
    """Return the mutants of all files below some folders."""
    files = sorted(file for folder in folders for file in (root / folder).rglob("*.py"))
    return [mutant for file in files for mutant in mutants_of(str(file.relative_to(root)), file.read_text())]


def _in_scope(outer: str, block: Iterable[ast.stmt]) -> Iterator[Place]:
    """Yield the places in the functions of a module or class."""
    for one in block:
        if isinstance(one, ast.ClassDef):
            yield from _in_scope(f"{outer}{one.name}.", one.body)
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name not in ("__repr__", "__str__"):
            names = (node for node in ast.walk(one) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            yield from _in_block(f"{outer}{one.name}", one.body, Counter(node.id for node in names))


def _in_block(name: str, block: Iterable[ast.stmt], stores: Counter[str]) -> Iterator[Place]:
    """Yield the places in statements of a function, by how often it binds each name."""
    for one in block:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _in_scope(f"{name}.", [one])
            continue
        if isinstance(one, ast.Assert) or _is_talk(one):
            continue
        if isinstance(one, ast.If) or (isinstance(one, _DROPPED) and not _is_only_store(one, stores)):
            yield name, one, one
        for node in _expressions(one):
            yield name, one, node
        for inner in [one, *getattr(one, "handlers", []), *getattr(one, "cases", [])]:
            for field in _BLOCKS:
                yield from _in_block(name, getattr(inner, field, []), stores)


def _is_talk(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring or a message to a log."""
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Constant):
        return True
    called = value.func if isinstance(value, ast.Call) else None
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in _LOGS


def _is_only_store(statement: ast.stmt, stores: Counter[str]) -> bool:
    """Return whether a name is never bound without the statement, which any run shows."""
    if not isinstance(statement, ast.Assign):
        return False
    names = [node for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return any(isinstance(node.ctx, ast.Store) and stores[node.id] < 2 for node in names)


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement's own expressions; types and messages are left out."""
    if isinstance(statement, ast.Raise):
        return
    left_out = {*_BLOCKS, "handlers", "cases", "annotation"}
    pending: list[Any] = [child for field, child in ast.iter_fields(statement) if field not in left_out]
    while pending:
        one = pending.pop(0)
        if isinstance(one, list):
            pending[:0] = one
        elif isinstance(one, ast.AST) and not isinstance(one, ast.JoinedStr):
            yield one
            pending[:0] = ast.iter_child_nodes(one)


def _operator(node: ast.AST, statement: ast.stmt) -> str:
    """Return the name of the change that can be made at a node; none is empty."""
    match node:
        case ast.If() | ast.IfExp():
            return "swapped branch"
        case _ if node is statement:
            return "dropped line"
        case ast.Compare() if type(node.ops[0]) in _COMPARISONS:
            return "comparison"
        case ast.Constant(value=bool()):
            return "truth"
        case ast.Constant(value=int()):
            return "off by one"
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            return "arithmetic"
        case ast.BoolOp():
            return "and for or"
        case ast.UnaryOp(op=ast.Not()):
            return "negation"
    return ""


def _change(whole: ast.Module, node: Any) -> None:
    """Change a node of a tree."""
    match node:
        case ast.If() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Compare():
            node.ops[0] = _COMPARISONS[type(node.ops[0])]()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int(number)):
            node.value = number + 1
        case ast.BinOp():
            node.op = _ARITHMETIC[type(node.op)]()
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp():
            _replace(whole, node, node.operand)
        case _:
            _replace(whole, node, ast.Pass())


def _replace(whole: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(whole):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                value[:] = [new if one is old else one for one in value]
