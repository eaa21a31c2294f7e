"""What the kernel reports about itself: /proc/vmstat, settings, its log; and temporary changes of settings."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_TRACING = Path("/sys/kernel/tracing")
_COMPLAINTS = ("BUG:", "WARNING:", "Oops", "Call Trace", "soft lockup", "Bad page", "hung task", "blocked for more")
_seen = 0


def kernel_complaints() -> list[str]:
    """Return the lines of the kernel's log that report a fault, since the last call."""
    global _seen
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()
    new, _seen = lines[_seen:], len(lines)
    return [line for line in new if any(complaint in line for complaint in _COMPLAINTS)]


def vmstat() -> dict[str, int]:
    """Return /proc/vmstat."""
    pairs = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def growth(before: dict[str, int]) -> dict[str, int]:
    """Return what grew in /proc/vmstat, or shrank, since `before`."""
    return {name: value - before.get(name, 0) for name, value in vmstat().items() if value != before.get(name, 0)}


@contextmanager
def reclaims_for_moves() -> Iterator[Callable[[], list[str]]]:
    """Trace direct reclaim; yield a function that returns the trace lines of those for a page of one given node.

    Such a page is what a move allocates. Processes that touch new pages of their own also reclaim on a full node.
    """
    event = _TRACING / "events/vmscan/mm_vmscan_direct_reclaim_begin/enable"
    (_TRACING / "trace").write_text("")
    event.write_text("1")
    try:
        yield lambda: [line for line in (_TRACING / "trace").read_text().splitlines() if "__GFP_THISNODE" in line]
    finally:
        event.write_text("0")


@contextmanager
def settings(**values: object) -> Iterator[None]:
    """Change settings that SETTINGS names, and restore them at the end."""
    with ExitStack() as stack:
        for name, value in values.items():
            path = SETTINGS[name]
            old = _chosen(path.read_text())
            path.write_text(f"{value}\n")
            stack.callback(path.write_text, f"{old}\n")
        yield


def _chosen(text: str) -> str:
    """Return a setting's value: the word in brackets where all choices are listed."""
    bracketed = [word[1:-1] for word in text.split() if word.startswith("[")]
    return bracketed[0] if bracketed else text.strip()


_BALANCING = Path("/sys/kernel/debug/sched/numa_balancing")
#: The kernel's settings that tests change, by a short name.
SETTINGS = {
    "numa_balancing": Path("/proc/sys/kernel/numa_balancing"),
    "promote_rate_limit": Path("/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"),
    "scan_delay_ms": _BALANCING / "scan_delay_ms",
    "scan_period_min_ms": _BALANCING / "scan_period_min_ms",
    "scan_period_max_ms": _BALANCING / "scan_period_max_ms",
    "scan_size_mb": _BALANCING / "scan_size_mb",
    "hot_threshold_ms": _BALANCING / "hot_threshold_ms",
    "demotion": Path("/sys/kernel/mm/numa/demotion_enabled"),
    "thp": Path("/sys/kernel/mm/transparent_hugepage/enabled"),
    "khugepaged": Path("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan"),
    "khugepaged_defrag": Path("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag"),
    "khugepaged_sleep_ms": Path("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"),
    "proactive_compaction": Path("/proc/sys/vm/compaction_proactiveness"),
    "online_policy": Path("/sys/devices/system/memory/auto_online_blocks"),
}
#: Other movers turned off, so that /proc/vmstat counts the moves of only one mover.
QUIET = {
    "numa_balancing": 0,
    "demotion": 0,
    # 0 is not accepted: a page an hour.
    "khugepaged": 1,
    "khugepaged_defrag": 0,
    "khugepaged_sleep_ms": 3_600_000,
    "proactive_compaction": 0,
}
