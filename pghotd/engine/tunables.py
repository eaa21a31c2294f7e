"""Tunables: one table that feeds the engine, configuration, command line, control files and documentation.

A tunable is read at each use, so a write takes effect at the next use. A value is a single Python integer, replaced as
a whole, so it is never torn between two writers.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pghotd.engine.changes import Changes
from pghotd.engine.kinds import ALL_KINDS
from pghotd.engine.kstrtox import kstrtouint
from pghotd.engine.modes import MODES, Mode, ModeRow
from pghotd.geometry import NUMA_NO_NODE

#: Two names for one setting: a write to either counts as a write to both.
_ONE_MECHANISM = frozenset({"target_nid", "target_policy"})


@dataclass(frozen=True, slots=True)
class PerMode:
    """A number for each mode."""

    numbers: Mapping[Mode, int]

    @classmethod
    def by(cls, number: Callable[[ModeRow], int]) -> "PerMode":
        """Return what each mode's row gives."""
        return cls({mode: number(row) for mode, row in MODES.items()})

    def of(self, mode: Mode) -> int:
        """Return the number of a mode."""
        return self.numbers[mode]


@dataclass(frozen=True, slots=True)
class Tunable:
    """A tunable: its range and default in each mode, its unit, and its description.

    `on_real_nodes` is the default on real nodes where it differs; `high_ageing` is the upper end of the range while
    `record_ageing` is on.
    """

    name: str
    low: int
    high: PerMode
    default: PerMode
    unit: str
    help: str
    on_real_nodes: int | None = None
    high_ageing: PerMode | None = None

    def default_for(self, mode: Mode, real_nodes: bool) -> int:
        """Return the default in a mode, on real nodes or on the model."""
        if real_nodes and self.on_real_nodes is not None:
            return self.on_real_nodes
        return self.default.of(mode)

    def highest(self, mode: Mode, ageing: bool) -> int:
        """Return the upper end of the range in a mode, while `record_ageing` is on or off."""
        return (self.high_ageing or self.high if ageing else self.high).of(mode)


def _same(value: int) -> PerMode:
    return PerMode(dict.fromkeys(MODES, value))


#: docs/rules.md, section 4; the kernel's pghot_* debugfs files and NUMA balancing's promotion rate limit.
TUNABLES: dict[str, Tunable] = {
    tunable.name: tunable
    for tunable in (
        Tunable(
            "enabled_sources",
            0,
            _same(ALL_KINDS),
            _same(ALL_KINDS),
            "bits",
            "kinds of sources that are recorded: 0x1 hintfaults, 0x2 hwhints, 0x4 pgtscans, 0x8 fma",
        ),
        Tunable(
            "target_nid",
            NUMA_NO_NODE,
            _same(1023),
            _same(0),
            "nid",
            "the online top-tier node that gets pages whose accessing node is not known; -1: the one nearest to each",
        ),
        Tunable(
            "freq_threshold",
            1,
            PerMode.by(lambda mode: mode.threshold_high),
            _same(2),
            "accesses",
            "accesses within the window that make a page ready for promotion",
        ),
        Tunable(
            "promote_freq_window_ms",
            1000,
            PerMode.by(lambda mode: mode.window_high),
            PerMode.by(lambda mode: mode.window_default),
            "ms",
            "an access later than this after the last one restarts the count",
            high_ageing=PerMode.by(lambda mode: mode.ageing_window_high),
        ),
        Tunable(
            "promote_rate_limit_MBps",
            0,
            _same(2**31 - 1),
            _same(65536),
            "MB/s",
            "promotion to each target node is limited to this while the node is short of free memory",
        ),
        Tunable(
            "kmigrated_sleep_ms",
            50,
            _same(1000),
            _same(100),
            "ms",
            "how long an idle kmigrated sleeps before it checks again for work",
        ),
        Tunable(
            "kmigrated_batch_nr",
            64,
            _same(1024),
            _same(512),
            "folios",
            "a batch that holds more folios than this is moved",
        ),
        # Improvements over the kernel's rules, off by default (docs/rules.md, section 8).
        Tunable(
            "kmigrated_wake",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: an access that makes a page ready wakes a sleeping kmigrated at once; 0: at the end of its interval",
        ),
        Tunable(
            "keep_refused",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: a folio refused for rate, space or isolation gets its record back, once; 0: it loses it",
        ),
        Tunable(
            "target_policy",
            0,
            _same(1),
            _same(0),
            "choice",
            "an older name for target_nid -1; 1: sets target_nid to -1, 0: restores its previous value",
        ),
        Tunable(
            "recheck_age_ms",
            0,
            PerMode.by(lambda mode: mode.window_high),
            _same(0),
            "ms",
            "a page last accessed longer ago than this when its turn comes is refused as cooled; 0: never",
        ),
        Tunable(
            "pingpong_ms",
            0,
            _same(600_000),
            _same(0),
            "ms",
            "a page demoted less than this ago is not promoted again; 0: it is",
        ),
        # Improvements needed on real nodes: on by default there, off on the model.
        Tunable(
            "record_ageing",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: records older than the window are cleared before their ages wrap; 0: a page read every few seconds "
            "can look hot, as in the kernel",
            on_real_nodes=1,
        ),
        Tunable(
            "recheck_once_ms",
            0,
            _same(10_000),
            _same(0),
            "ms",
            "a page that a scan saw accessed once is looked at again after this time; 0: in the next scan",
            on_real_nodes=250,
        ),
        Tunable(
            "demotion_room",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: where the kernel demotes, promotion uses memory down to the low watermark and has kswapd make room; "
            "0: it stops at the high watermark",
            on_real_nodes=1,
        ),
        Tunable(
            "refusal_rest",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: a refused page keeps its record and is not taken again while the reason lasts; 0: it is taken again "
            "whenever it becomes ready",
            on_real_nodes=1,
        ),
        Tunable(
            "admit_by_heat",
            0,
            _same(1),
            _same(0),
            "switch",
            "1: where more is ready than the target has room for, the hottest pages go first; 0: in PFN order",
            on_real_nodes=1,
        ),
    )
}


class Tunables:
    """Current values of one daemon's tunables.

    `is_target(nid)` returns whether nid is an online top-tier node with memory, which can change at run time.
    """

    enabled_sources: int
    freq_threshold: int
    promote_freq_window_ms: int
    promote_rate_limit_MBps: int  # noqa: N815 - the interface's own name
    kmigrated_sleep_ms: int
    kmigrated_batch_nr: int
    kmigrated_wake: int
    keep_refused: int
    recheck_age_ms: int
    pingpong_ms: int
    record_ageing: int
    recheck_once_ms: int
    demotion_room: int
    refusal_rest: int
    admit_by_heat: int
    #: The last target_nid that was a node, restored by target_policy 0.
    last_target_nid: int

    def __init__(
        self, mode: Mode, target_nid: int, is_target: Callable[[int], bool], *, real_nodes: bool = False
    ) -> None:
        self.mode = mode
        self._is_target = is_target
        self._real_nodes = real_nodes
        for tunable in TUNABLES.values():
            setattr(self, tunable.name, tunable.default_for(mode, real_nodes))
        self.target_nid = target_nid
        #: Tunables written at run time: a configuration reload does not change them, and a saved state keeps them.
        self.written: set[str] = set()
        self.changes = Changes()

    @property
    def target_nid(self) -> int:
        """Target node for pages whose accessing node is not known; -1 for the node nearest to each page."""
        return self._target_nid

    @target_nid.setter
    def target_nid(self, value: int) -> None:
        self._target_nid = value
        if value != NUMA_NO_NODE:
            self.last_target_nid = value

    @property
    def target_policy(self) -> int:
        """1 while target_nid is -1."""
        return int(self.target_nid == NUMA_NO_NODE)

    @target_policy.setter
    def target_policy(self, value: int) -> None:
        if value:
            self.target_nid = NUMA_NO_NODE
        elif self.target_nid == NUMA_NO_NODE:
            self.target_nid = self.last_target_nid

    def default(self, name: str) -> int:
        """Return the declared default of a tunable; the actual one of `target_nid` is Targets.lowest."""
        return TUNABLES[name].default_for(self.mode, self._real_nodes)

    def check(self, name: str, value: int, together: Mapping[str, int] | None = None) -> None:
        """Raise OSError(EINVAL), with the valid range, unless `value` is valid for tunable `name`.

        `together` holds values that other tunables are set to at the same time.
        """
        values = {other: getattr(self, other) for other in TUNABLES} | dict(together or {}) | {name: value}
        if (wrong := wrong_value(name, values, self.mode)) is not None:
            raise OSError(errno.EINVAL, wrong)
        if name == "target_nid" and value != NUMA_NO_NODE and not self._is_target(value):
            raise OSError(errno.EINVAL, f"node {value} is not an online top-tier node")

    def set(self, name: str, value: int, together: Mapping[str, int] | None = None) -> None:
        """Set tunable `name` to `value`; an invalid one raises OSError(EINVAL), as in `check`, and changes nothing."""
        self.check(name, value, together)
        setattr(self, name, value)

    def store(self, name: str, text: bytes) -> None:
        """Set tunable `name` from text written to its control file; OSError(EINVAL) changes nothing."""
        self.write(name, parse(name, text))

    def write(self, name: str, value: int, together: Mapping[str, int] | None = None) -> None:
        """Set tunable `name` as a run-time write; an invalid value raises OSError(EINVAL) and changes nothing."""
        self.set(name, value, together)
        self.written |= _ONE_MECHANISM if name in _ONE_MECHANISM else {name}
        self.changes.notify()

    def __getitem__(self, name: str) -> int:
        value: int = getattr(self, TUNABLES[name].name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(TUNABLES)


def parse(name: str, text: bytes) -> int:
    """Parse a value of tunable `name` as the kernel does; OSError(EINVAL) if the text is not one."""
    if name == "target_nid" and text.removesuffix(b"\n") == b"-1":
        return NUMA_NO_NODE
    return kstrtouint(text)


def wrong_value(name: str, values: Mapping[str, int], mode: Mode) -> str | None:
    """Return why the value of tunable `name` in `values`, which has one per tunable, is invalid; None if it is valid.

    The maximum window depends on `record_ageing`, which therefore cannot be turned on while the window is wider.
    """
    tunable, value = TUNABLES[name], values[name]
    ageing = bool(values["record_ageing"])
    high = tunable.highest(mode, ageing)
    if not tunable.low <= value <= high:
        why = " while record_ageing is on" if tunable.low <= value <= tunable.high.of(mode) else ""
        return f"{value} is not in {tunable.low}..{high}{why}"
    if name == "record_ageing" and ageing:
        for other in TUNABLES.values():
            if values[other.name] > (most := other.highest(mode, ageing=True)):
                return f"{value} needs {other.name} of at most {most}, but it is {values[other.name]}"
    return None
