"""The content of `status`, without a mount."""

import tomllib

from pghotd.daemon.config import parse
from pghotd.daemon.run import build
from pghotd.fs.controls import control_tree
from pghotd.fs.tree import Attr, resolve

TARGETS = """
[[sources.procscan.target]]
cgroup = "/wrok"
[[sources.procscan.target]]
name = "postgrse"
"""


async def test_watches_and_targets_that_match_nothing_are_named():
    parts = build(parse(tomllib.loads(TARGETS), "test", None, []))
    memory, procscan = parts.pghot.memory, parts.sources.by_name["procscan"]

    def shown(watches: str) -> str:
        memory.stat = lambda: {"unmatched": watches}  # type: ignore[method-assign]
        status = resolve(control_tree(parts), "status")
        assert isinstance(status, Attr)
        (line,) = (line for line in status.render().decode().splitlines() if line.startswith("unmatched "))
        return line.partition(" ")[2]

    assert shown("-") == "-"
    assert shown("watch name=db") == "watch name=db"
    procscan._matches.update((0, 0), parts.clock() - 60_000)  # type: ignore[attr-defined]
    assert shown("-") == "target cgroup=/wrok; target name=postgrse"
    assert shown("watch name=db") == "watch name=db; target cgroup=/wrok; target name=postgrse"
