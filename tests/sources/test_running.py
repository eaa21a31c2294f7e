"""Drivers run as configured, and can change while they run."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pghotd.sources.model.workload import WorkloadSettings
from pghotd.sources.running import RunningSources
from pghotd.sources.scan.softdirty import SoftdirtySettings


class Driver:
    """A driver that logs when it begins and when it has ended, which takes a second."""

    kind = 0

    def __init__(self, log: list[str], name: str, settings: object) -> None:
        self._log = log
        self.name = name
        self.settings = settings
        self.enabled = True

    def stat(self) -> dict[str, int | str]:
        return {"works": "yes", "unmatched": "name=x" if self.name == "softdirty" else "-"}

    async def run(self) -> None:
        self._log.append(f"{self.name} begins")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self._log.append(f"{self.name} ended")


@pytest.fixture
def log():
    return []


WORKLOAD, OTHER_WORKLOAD = WorkloadSettings(seed=1), WorkloadSettings(seed=2)
SOFTDIRTY = SoftdirtySettings()


def running(log, settings):
    return RunningSources(settings, lambda name, one: Driver(log, name, one))


async def test_only_changed_drivers_are_restarted_after_they_have_ended(autojump_clock, nursery, log):
    sources = running(log, {"workload": WORKLOAD, "softdirty": SOFTDIRTY})
    nursery.start_soon(sources.run)
    await wait_all_tasks_blocked()
    assert sorted(log) == ["softdirty begins", "workload begins"]
    log.clear()
    assert sources.change({"workload": WORKLOAD, "softdirty": SOFTDIRTY}) == []
    assert sources.change({"workload": OTHER_WORKLOAD, "softdirty": SOFTDIRTY}) == ["workload"]
    assert sources.by_name["workload"].settings == OTHER_WORKLOAD
    await trio.sleep(0.5)
    assert log == []
    await trio.sleep(1)
    assert log == ["workload ended", "workload begins"]


async def test_a_driver_no_longer_configured_ends_and_may_return(autojump_clock, nursery, log):
    sources = running(log, {"workload": WORKLOAD})
    nursery.start_soon(sources.run)
    await wait_all_tasks_blocked()
    assert sources.change({}) == ["workload"]
    assert sources.by_name == {}
    await trio.sleep(2)
    assert log == ["workload begins", "workload ended"]
    assert sources.change({"workload": WORKLOAD}) == ["workload"]
    await trio.sleep(2)
    assert log == ["workload begins", "workload ended", "workload begins"]


async def test_a_value_written_to_enabled_survives_a_change(log):
    sources = running(log, {"workload": WORKLOAD})
    sources.by_name["workload"].enabled = False
    sources.change({"workload": OTHER_WORKLOAD, "softdirty": SOFTDIRTY})
    assert not sources.by_name["workload"].enabled
    assert sources.by_name["softdirty"].enabled


def test_unmatched_targets_are_those_of_all_drivers(log):
    assert running(log, {"workload": WORKLOAD}).unmatched() == []
    assert running(log, {"workload": WORKLOAD, "softdirty": SOFTDIRTY}).unmatched() == ["name=x"]
