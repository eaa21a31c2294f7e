"""The small changes that `make mutants` makes."""

import ast

import pytest

from tests.mutants.mutations import mutants_of


def mutated(body: str) -> list[tuple[str, str]]:
    """Return the body of a function after each change, with the name of the change."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return [
        (one.operator, "\n".join(ast.unparse(ast.parse(one.source()).body[0].body).splitlines()))
        for one in mutants_of("x.py", f"def f(a, b):\n{lines}")
    ]


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("return a < b", [("dropped line", "pass"), ("comparison", "return a <= b")]),
        ("return a is None", [("dropped line", "pass"), ("comparison", "return a is not None")]),
        ("return a[1:]", [("dropped line", "pass"), ("off by one", "return a[2:]")]),
        ("return a + b", [("dropped line", "pass"), ("arithmetic", "return a - b")]),
        ("a(b and True)", [("dropped line", "pass"), ("and for or", "a(b or True)"), ("truth", "a(b and False)")]),
        ("return a if b else a", [("dropped line", "pass"), ("swapped branch", "return a if not b else a")]),
        ("while not a:\n    a.b()", [("negation", "while a:\n    a.b()"), ("dropped line", "while not a:\n    pass")]),
        ("if a:\n    a()", [("swapped branch", "if not a:\n    a()"), ("dropped line", "if a:\n    pass")]),
        ("match a:\n    case 1:\n        a()", [("dropped line", "match a:\n    case 1:\n        pass")]),
        (
            "try:\n    a()\nexcept OSError:\n    b()",
            [
                ("dropped line", "try:\n    pass\nexcept OSError:\n    b()"),
                ("dropped line", "try:\n    a()\nexcept OSError:\n    pass"),
            ],
        ),
    ],
)
def test_each_change_is_made_separately(body, changes):
    assert mutated(body) == changes


@pytest.mark.parametrize(
    "body",
    [
        '"""Return something."""',
        'log.info("%d", 1)',
        'raise ValueError(f"{a + 1}")',
        "assert a == 1",
        "x: Literal[1]",
        "x = a",
        "def __repr__(self):\n    return 1",
    ],
)
def test_messages_and_changes_that_fail_at_once_are_left_out(body):
    assert [change for change in mutated(body) if change != ("dropped line", "pass")] == []


def test_a_mutant_is_named_by_its_text_and_not_by_its_place():
    text = "class C:\n    async def f(self):\n        self.x()\n"
    first, second = mutants_of("a.py", text) + mutants_of("b/c.py", f"import d\n\n{text}")
    assert first.name == second.name == ("C.f", "self.x()", "dropped line", 0)
    assert (first.line, second.line) == (3, 5)
