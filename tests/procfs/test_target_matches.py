"""How long targets have matched nothing."""

from pghotd.procfs.process_targets import Target
from pghotd.procfs.target_matches import UNMATCHED_MS, TargetMatches


def test_a_target_that_matches_nothing_for_a_while_is_named_until_it_does():
    matches = TargetMatches((Target(name="a b\n"), Target(cgroup="/x", user="0"), Target()))
    matches.update((0, 0, 0), 1000)
    assert matches.unmatched(1000 + UNMATCHED_MS - 1) == []
    matches.update((0, 1, 0), 2000)
    assert matches.unmatched(1000 + UNMATCHED_MS) == [r"name=a\x20b\x0a", "all"]
    matches.update((5, 0, 0), 50_000)
    assert matches.unmatched(50_000) == ["all"]
    matches.update((5, 0, 1), 50_000 + UNMATCHED_MS)
    assert matches.unmatched(50_000 + UNMATCHED_MS) == ["user=0 cgroup=/x"]
