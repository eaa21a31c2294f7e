"""In precision mode, pages go to the node that accesses them, where several are fast."""

from tests.vm.guest.clues import QUIET, settings
from tests.vm.guest.measure import pghotd
from tests.vm.guest.placement import placement
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, counted, hot_pfns, inject


def _promoted(mode: str, accessor: int) -> list[int]:
    """Report accesses from node `accessor` to 400 pages, and return how many are on nodes 0 and 1 then."""
    with (
        settings(**QUIET),
        target("contiguous", "--node", "2", "--cpu", str(accessor)) as running,
        pghotd(config(running.facts.pid), arguments=("--mode", mode)) as program,
    ):
        inject(program, hot_pfns(running.facts)[:400], accessor)
        counted(program, lambda now: now["pgpromote_success"] == 400)
        return [placement(running.facts, node).hot_there for node in (0, 1)]


def test_precision_mode_promotes_to_the_accessing_node():
    assert _promoted("precise", 1) == [0, 400]
    assert _promoted("precise", 0) == [400, 0]


def test_default_mode_promotes_to_target_nid_whoever_accesses():
    assert _promoted("default", 1) == [400, 0]
