"""Serve the whole control tree of a machine with 1 TiB of lower tier, every page of it touched.

`python -m tests.bench.scale.touched_daemon MOUNTPOINT [TUNABLE=VALUE...]`: prints `ready` once mounted, serves until
standard input ends. The records are written at once: as accesses they would take minutes.
"""

import sys
from pathlib import Path

import numpy as np
import trio

from pghotd.daemon.run import clock
from pghotd.fs.controls import Parts, control_tree
from pghotd.fs.mount import MountOptions, serve
from pghotd.fs.operations import TreeOperations
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.sources.running import RunningSources
from pghotd.tasks.census_taker import CensusTaker
from pghotd.tasks.kmigrated import KmigratedSet
from pghotd.tasks.sweeper import Sweeper
from tests.machines import Rig, node

SECTIONS = 8192
#: How many pages are recorded in one go, to be copied all over the node.
_PATTERN = 16 * PAGES_PER_SECTION


def touched(rig: Rig) -> None:
    """Give every page of node 1 a record: of any frequency, not ready, the last access up to two seconds ago."""
    fmt, store, random = rig.pghot.format, rig.pghot.store, np.random.default_rng(1)
    records = store.node(1).records
    pattern = random.integers(1, fmt.ready_bit, _PATTERN).astype(fmt.dtype)
    for start in range(0, len(records), _PATTERN):
        records[start : start + _PATTERN] = pattern
    sections = np.array(sorted(store.node(1).sections))
    store.touched[sections] = 1
    store.wraps_at[sections] = 1 << 60


async def main(mountpoint: Path, tunables: list[str]) -> None:
    """Serve until standard input ends."""
    rig = Rig((node(0, 64, "top", (10, 20)), node(1, SECTIONS, "lower", (20, 10))), clock=clock)
    for name, _, value in (one.partition("=") for one in tunables):
        rig.pghot.tunables.set(name, int(value))
    touched(rig)
    census = CensusTaker(rig.pghot, clock)
    kmigrated = KmigratedSet(rig.pghot, clock)
    sources = RunningSources({}, lambda name, one: None)  # type: ignore[arg-type, return-value]
    parts = Parts(rig.pghot, clock, kmigrated, census, sources, dict)
    options = MountOptions(mountpoint=mountpoint)
    async with trio.open_nursery() as nursery:
        await nursery.start(kmigrated.run)
        nursery.start_soon(census.run)
        nursery.start_soon(Sweeper(rig.pghot, clock).run)
        await nursery.start(serve, TreeOperations(control_tree(parts)), options)
        print("ready", flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2:])
