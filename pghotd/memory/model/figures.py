"""Figures of a workload: accesses by tier, bytes moved, pages that bounced, and the mean latency with its parts.

The load on a node is its utilisation u of bandwidth in each 100 ms, including moves and capped at 0.95; an access then
takes latency x (1 + u / (2 (1 - u))), the wait in a queue with one server and constant service time. So promotion can
have a negative effect, which the figures show.
"""

from dataclasses import dataclass

from pghotd.geometry import PAGE_SIZE
from pghotd.memory.model.spec import NodeSpec

#: A memory access is a cache miss: one cache line.
BYTES_PER_ACCESS = 64
WINDOW_MS = 100
_MAX_UTILISATION = 0.95


@dataclass(slots=True)
class _Window:
    """Load of one node in the current 100 ms."""

    accesses: int = 0
    bytes: int = 0


class Figures:
    """Figures of one machine."""

    def __init__(self, nodes: tuple[NodeSpec, ...]) -> None:
        self._specs = {node.nid: node for node in nodes}
        self._windows = {node.nid: _Window() for node in nodes}
        self._window_no = 0
        self._load_ns = 0.0
        self._accesses = {node.nid: 0 for node in nodes}
        self._wait_ns = 0
        self.bytes_promoted = 0
        self.bytes_demoted = 0
        self.pages_bounced = 0

    def accessed(self, nid: int, number: int, now: int) -> None:
        """Count `number` memory accesses to node `nid` at `now` (ms)."""
        self._advance(now)
        self._accesses[nid] += number
        window = self._windows[nid]
        window.accesses += number
        window.bytes += number * BYTES_PER_ACCESS

    def waited(self, nanoseconds: int) -> None:
        """Count time that accesses waited for folios being moved."""
        self._wait_ns += nanoseconds

    def moved(self, source: int, target: int, pages: int, now: int) -> None:
        """Count the load of moving pages: read from `source`, written to `target`."""
        self._advance(now)
        for nid in (source, target):
            self._windows[nid].bytes += pages * PAGE_SIZE

    def _advance(self, now: int) -> None:
        window_no = now // WINDOW_MS
        if window_no != self._window_no:
            self._load_ns += self._present_load_ns()
            self._windows = {nid: _Window() for nid in self._windows}
            self._window_no = window_no

    def _present_load_ns(self) -> float:
        return sum(
            window.accesses * self._specs[nid].latency_ns * queueing(self._utilisation(nid))
            for nid, window in self._windows.items()
        )

    def _utilisation(self, nid: int) -> float:
        capacity = self._specs[nid].bandwidth_MBps * (1 << 20) * WINDOW_MS / 1000
        return min(self._windows[nid].bytes / capacity, _MAX_UTILISATION)

    def report(self) -> dict[str, int]:
        """Return the figures by name, as in model/stat; the mean latency is the sum of its three parts."""
        top = sum(self._accesses[nid] for nid, spec in self._specs.items() if spec.tier == "top")
        total = sum(self._accesses.values())
        base = sum(self._accesses[nid] * spec.latency_ns for nid, spec in self._specs.items())
        parts = [
            round(part / total) if total else 0
            for part in (base, self._load_ns + self._present_load_ns(), self._wait_ns)
        ]
        return {
            "accesses_top": top,
            "accesses_lower": total - top,
            "hit_ratio_ppm": top * 1_000_000 // total if total else 0,
            "mean_latency_ns": sum(parts),
            "mean_latency_node_ns": parts[0],
            "mean_latency_load_ns": parts[1],
            "mean_latency_wait_ns": parts[2],
            "bytes_promoted": self.bytes_promoted,
            "bytes_demoted": self.bytes_demoted,
            "pages_bounced": self.pages_bounced,
        }


def queueing(utilisation: float) -> float:
    """Return the wait of an access at a node of this utilisation, as a share of the node's latency."""
    return utilisation / (2 * (1 - utilisation))
