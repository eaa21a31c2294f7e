"""A fast node that is full, with demotion on: what is hot goes in for what is cold, and no bystander pays for it."""

from tests.vm.guest.judged import moved_less, recalled
from tests.vm.guest.scenario import Part, Scenario, compare, of

_SWEEP = ("--size-mb", "128", "--hot-mb", "16", "--sweep-s", "10")
_KEPT = 0.95


def _exchanged(name: str, kind: str, layout: str) -> None:
    scenario = Scenario(name, (Part(layout, _SWEEP),), demotion=True, ballast=kind, bystander=True, at=(10, 20, 30, 60))
    rows = compare(scenario)
    recalled(rows, 0.95, since_s=30)
    for row in of(rows, "pghotd"):
        assert row.more["bystander_pages"], f"the bystander freed nothing, so its pages say nothing: {row}"
        kept = row.more["bystander_kept"]
        assert isinstance(kept, float), row
        assert kept >= _KEPT, f"the bystander lost its place on the fast node: {row}"
        assert not row.more.get("oom_kill"), row


def test_cold_small_pages_go_for_hot_ones():
    _exchanged("full, 4 KiB", "anonymous", "scattered")


def test_cold_huge_pages_go_for_hot_ones():
    _exchanged("full, huge", "huge", "huge")


def test_a_noisy_neighbour_does_not_keep_a_hot_process_out():
    """Noise is read at random, each page every two seconds: by the rule all of it is hot, but not as hot."""
    hot = Part("scattered", ("--size-mb", "16", "--hot-mb", "16"), cgroup="hot")
    noise = ("--size-mb", "512", "--hot-mb", "0", "--cold-rate", "0.5", "--round-ms", "50", "--seed", "2")
    scenario = Scenario(
        "two cgroups", (hot, Part("scattered", noise, cgroup="noise")), demotion=True, ballast="anonymous"
    )
    rows = compare(scenario)
    recalled(rows, 0.95, since_s=20)
    moved_less(rows, 0.5, 60)


def test_with_a_full_slow_node_it_stops_and_says_why():
    scenario = Scenario(
        "both full",
        (Part("scattered", _SWEEP),),
        demotion=True,
        ballast="anonymous",
        slow_is_full=True,
        at=(10, 20, 30, 40),
    )
    said: list[str] = []
    for row in of(compare(scenario, listen=lambda program: said.append(program.read("status"))), "pghotd"):
        early, late = row.at(20), row.last
        assert late.promoted - early.promoted < 512, f"it goes on although nothing can be demoted: {row}"
        assert not row.more.get("oom_kill"), row
        assert "slow node" in "".join(said), f"status does not say why: {said}"


for _test in (
    test_cold_small_pages_go_for_hot_ones,
    test_cold_huge_pages_go_for_hot_ones,
    test_a_noisy_neighbour_does_not_keep_a_hot_process_out,
    test_with_a_full_slow_node_it_stops_and_says_why,
):
    _test.limit_s = 600  # type: ignore[attr-defined]
