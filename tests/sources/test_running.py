"""Drivers that run as configured, and change while they run."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pghotd.sources.model.workload import WorkloadSettings
from pghotd.sources.running import RunningSources
from pghotd.sources.scan.softdirty import SoftdirtySettings


class Driver:
    """A driver that says when it begins, ends, and has put back what it changed, which takes a second."""

    kind = 0

    def __init__(self, said: list[str], name: str, settings: object) -> None:
        self._said = said
        self.name = name
        self.settings = settings
        self.enabled = True

    def stat(self) -> dict[str, int | str]:
        return {"works": "yes", "unmatched": "name=x" if self.name == "softdirty" else "-"}

    async def run(self) -> None:
        self._said.append(f"{self.name} begins")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self._said.append(f"{self.name} ended")


@pytest.fixture
def said():
    return []


WORKLOAD, OTHER_WORKLOAD = WorkloadSettings(seed=1), WorkloadSettings(seed=2)
SOFTDIRTY = SoftdirtySettings()


def running(said, settings):
    return RunningSources(settings, lambda name, one: Driver(said, name, one))


async def test_only_what_changed_is_started_again_and_after_it_has_ended(autojump_clock, nursery, said):
    sources = running(said, {"workload": WORKLOAD, "softdirty": SOFTDIRTY})
    nursery.start_soon(sources.run)
    await wait_all_tasks_blocked()
    assert sorted(said) == ["softdirty begins", "workload begins"]
    said.clear()
    assert sources.change({"workload": WORKLOAD, "softdirty": SOFTDIRTY}) == []
    assert sources.change({"workload": OTHER_WORKLOAD, "softdirty": SOFTDIRTY}) == ["workload"]
    assert sources.by_name["workload"].settings == OTHER_WORKLOAD
    await trio.sleep(0.5)
    assert said == []
    await trio.sleep(1)
    assert said == ["workload ended", "workload begins"]


async def test_one_that_is_configured_no_more_ends_and_may_come_again(autojump_clock, nursery, said):
    sources = running(said, {"workload": WORKLOAD})
    nursery.start_soon(sources.run)
    await wait_all_tasks_blocked()
    assert sources.change({}) == ["workload"]
    assert sources.by_name == {}
    await trio.sleep(2)
    assert said == ["workload begins", "workload ended"]
    assert sources.change({"workload": WORKLOAD}) == ["workload"]
    await trio.sleep(2)
    assert said == ["workload begins", "workload ended", "workload begins"]


async def test_what_was_written_to_enabled_stays_over_a_change(said):
    sources = running(said, {"workload": WORKLOAD})
    sources.by_name["workload"].enabled = False
    sources.change({"workload": OTHER_WORKLOAD, "softdirty": SOFTDIRTY})
    assert not sources.by_name["workload"].enabled
    assert sources.by_name["softdirty"].enabled


def test_targets_that_fit_nothing_are_those_of_all_drivers(said):
    assert running(said, {"workload": WORKLOAD}).unmatched() == []
    assert running(said, {"workload": WORKLOAD, "softdirty": SOFTDIRTY}).unmatched() == ["name=x"]
