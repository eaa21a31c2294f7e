"""The tables of docs/rules.md and docs/control-tree.md, compared with the code: a row that only one has is an error."""

import re
import tomllib
from pathlib import Path

import pytest
import trio

from pghotd.daemon import config
from pghotd.daemon.run import build
from pghotd.engine.counters import Counters
from pghotd.engine.formats import FORMATS
from pghotd.engine.kinds import KINDS
from pghotd.engine.modes import MODES
from pghotd.engine.tunables import TUNABLES
from pghotd.fs.controls import control_tree
from pghotd.fs.tree import Dir, DynamicDir, Node
from pghotd.geometry import MAX_NUMNODES
from pghotd.memory.registry import BACKENDS

DOCS = Path(__file__).parents[1] / "docs"
#: A driver, without processes of this machine, which can end while the tree is listed.
CONFIG = "[sources.workload]\n"


def rows(page: str, first_column: str) -> list[list[str]]:
    """Return the cells of the table of a page with that first column."""
    lines = (DOCS / page).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |")) + 2
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def ranges(mode) -> dict[str, str]:
    return {one.name: f"{one.low}..{one.high.of(mode)}" for one in TUNABLES.values()}


def test_the_tunables_of_the_rules():
    table = [row for row in rows("rules.md", "file") if len(row) == 4]
    assert [row[0] for row in table] == list(TUNABLES)
    for name, range_, default, unit in table:
        tunable = TUNABLES[name]
        by_mode = range_.split(" / ") if " / " in range_ else [range_] * len(MODES)
        assert by_mode == [ranges(mode)[name] for mode in MODES], name
        assert unit == tunable.unit, name
        if name == "target_nid":
            assert default == "the lowest top-tier node"
            assert tunable.high.of("default") == MAX_NUMNODES - 1
            continue
        model, _, real = default.partition(", on real nodes ")
        values = [int(value) for value in model.split(" / ")]
        assert (values if len(values) > 1 else values * len(MODES)) == [tunable.default.of(mode) for mode in MODES], (
            name
        )
        assert (int(real) if real else None) == tunable.on_real_nodes, name


def test_the_ranges_of_the_window_while_records_age():
    window = TUNABLES["promote_freq_window_ms"]
    most = " / ".join(str(window.highest(mode, True)) for mode in MODES)
    assert f"goes up to {most}." in (DOCS / "rules.md").read_text().replace("\n", " ")


def test_every_mode_has_a_format_and_ranges_that_it_can_hold():
    assert list(FORMATS) == list(MODES)
    for mode, make in FORMATS.items():
        assert make("v6").freq_max == MODES[mode].threshold_high, mode


def test_the_kinds_of_sources_of_the_rules():
    table = rows("rules.md", "kind of source")
    assert [row[0] for row in table] == list(KINDS)
    assert [int(row[1], 16) for row in table] == [1 << number for number in range(len(KINDS))]
    assert [row[3] for row in table] == [f"pghot_recorded_{kind}" for kind in KINDS]


def test_every_counter_named_in_the_rules_exists():
    section = (DOCS / "rules.md").read_text().partition("## 7. Counters")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(?:hwhint|pghotd?|pgpromote|pgdemote|pgmigrate|numa_pages)_[a-z_]*[a-z]\b", section))
    there = set(Counters().total)
    kernel = {name for name in there if not name.startswith("pghotd_")}
    assert named - there <= {"pghotd_refused", "pghotd_failed"}
    assert kernel - {name for name in kernel if name.startswith("pghotd_")} <= named


#: Placeholders in the table that stand for several files, as patterns of paths of the tree.
PATTERNS = {
    "KIND": f"(?:{'|'.join(KINDS)})",
    "DRIVER": f"(?!(?:{'|'.join(KINDS)})/)[a-z_0-9]+",
    "nodeN": "node[0-9]+",
    "memoryS": "memory[0-9]+",
    "PFN": "PFN",
    "PID:ADDRESS": "PID:ADDRESS",
}


def pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of the paths that a row stands for."""
    return re.compile("/".join(PATTERNS.get(part, re.escape(part)) for part in path.split("/")))


def files(node: Node, path: str = "") -> dict[str, int]:
    """Return the mode of each file below a directory; one name stands for all in a directory that lists nothing."""
    found: dict[str, int] = {}
    if not isinstance(node, Dir | DynamicDir):
        return {path: node.mode}
    names = list(node.names())
    unlisted = {"pfn": "PFN", "addr": "PID:ADDRESS", "explain": "PFN"}
    if not names and path in unlisted:
        return {f"{path}/{unlisted[path]}": 0o400}
    for name in names:
        child = node.lookup(name)
        assert child is not None
        found |= files(child, f"{path}/{name}".lstrip("/"))
    return found


@pytest.fixture(scope="module")
def tree() -> dict[str, int]:
    async def build_and_list() -> dict[str, int]:
        return files(control_tree(build(config.parse(tomllib.loads(CONFIG), "test", None, []))))

    return trio.run(build_and_list)


def test_every_package_is_installed():
    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(file.parent.relative_to(root).parts) for file in (root / "pghotd").rglob("*.py")}
    assert sorted(found | {"pghotd.fs"}) == sorted(listed)


def test_every_backend_has_a_row():
    packages = (Path(__file__).parents[1] / "pghotd" / "memory").glob("*/__init__.py")
    assert {file.parent.name for file in packages} == set(BACKENDS)


def test_the_documented_control_tree_matches_the_tree(tree):
    table = {row[0].strip("`"): int(row[1], 8) for row in rows("control-tree.md", "file")}
    assert table.pop("each tunable") == 0o644
    for name in TUNABLES:
        assert tree.pop(name) == 0o644
    patterns = {path: pattern(path) for path in table}
    for path, mode in tree.items():
        of = [row for row, one in patterns.items() if one.fullmatch(path)]
        assert len(of) == 1, f"{path} stands in {of or 'no row'} of docs/control-tree.md"
        assert table[of[0]] == mode, path
    for row, one in patterns.items():
        assert any(one.fullmatch(path) for path in tree), f"docs/control-tree.md has {row}, the tree has not"


def test_no_file_cites_a_contract_that_is_not_in_the_project():
    root, cited = DOCS.parent, re.compile(r"semantics\.md|(?<!docs/)control-tree\.md")
    sources = [*root.glob("pghotd/**/*.py"), *root.glob("fs/**/*.py"), *root.glob("tests/**/*.py")]
    for file in sources:
        if file != Path(__file__):
            assert not cited.search(file.read_text()), file
