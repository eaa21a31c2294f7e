"""Policy for making a full top-tier node free memory: the improvement `demotion_room`.

The kernel's own promotion wakes kswapd when it finds no room. A mover in user space cannot: it stops at the high
watermark, kswapd sleeps above low, and a full node stays full. So promotion goes down to just above low, and then a
page is allocated below low, which wakes kswapd; kswapd demotes up to high, and promotion continues. Promoting down to
between min and low was tried: it needs no wake-up, but below low all other allocations skip the node, for as long as it
continues.

Room is not requested while that cannot work: if the slow nodes have no room for demoted pages, or if the node has
demoted nothing despite requests. For a minute after an exchange, a node that falls to low is restored: otherwise
allocations would go to a slow node because promotion used up the room.
"""

from dataclasses import dataclass

#: How long demand for room stays valid, and the minimum time between two requests, in ms.
_WANTED_MS = 1000
_ASK_EVERY_MS = 50
#: A node that has demoted nothing after this many requests over this time gets no requests for a while.
_STALLED_ASKS, _STALLED_MS = 10, 2000
_TRY_AGAIN_MS = 10_000
_RESTORE_MS = 60_000
#: Pages that the slow nodes must have free above their high watermarks for a demotion: what kswapd takes in one go.
_SLOW_ROOM = 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """Figures of a top-tier node: those of its best zone, in pages, and the number of pages demoted so far.

    `slow_room` is the number of pages by which the lower tier is above its high watermarks.
    """

    free: int
    low: int
    high: int
    demoted: int
    slow_room: int


class Exchange:
    """Exchange of cold pages for hot ones on one top-tier node; methods take the time as an argument, in ms."""

    def __init__(self, nid: int) -> None:
        self._nid = nid
        #: Whether the kernel demotes from this node at all.
        self.demotes = False
        #: Why room is not requested now, in one sentence; empty if it is.
        self.reason = ""
        #: Number of requests for room.
        self.asked = 0
        self._wanted = 0
        self._wanted_at: int | None = None
        self._asked_at: int | None = None
        self._competed_at: int | None = None
        self._demoted: int | None = None
        self._demoted_at: int | None = None
        self._asks_without = 0
        self._first_without = 0
        #: Why, and until when, the node gets no requests regardless of the readings.
        self._given_up = ""
        self._given_up_until = 0

    def want(self, pages: int, now: int) -> None:
        """Note that pages compete for room on the node, and that `pages` of them justify making room."""
        self._competed_at = now
        if pages:
            self._wanted, self._wanted_at = pages, now

    @property
    def works(self) -> bool:
        """Whether promotion can rely on room being made, and so go down to low."""
        return self.demotes and not self.reason

    def is_wanted(self, now: int) -> bool:
        """Return whether pages are waiting for room now."""
        return self._wanted_at is not None and now - self._wanted_at < _WANTED_MS

    def is_warm(self, now: int) -> bool:
        """Return whether to poll the node: pages compete for its room, or room was made less than a minute ago."""
        competed = self._competed_at is not None and now - self._competed_at < _WANTED_MS
        return competed or self._is_restored(now)

    def has_demoted(self, now: int) -> bool:
        """Return whether a demotion on the node was observed within the last minute."""
        return self._demoted_at is not None and now - self._demoted_at < _RESTORE_MS

    def _is_restored(self, now: int) -> bool:
        return self._asked_at is not None and now - self._asked_at < _RESTORE_MS

    def ask(self, seen: Reading, now: int) -> bool:
        """Return whether the caller must request room now; if so, the request is counted as made."""
        if not self.demotes:
            self.reason = ""
            return False
        self._judge(seen, now)
        if self.reason or (self._asked_at is not None and now - self._asked_at < _ASK_EVERY_MS):
            return False
        gap = seen.high - seen.low
        margin = min(gap // 4, 1024)
        wanted = self.is_wanted(now) and seen.free - seen.low - margin < min(self._wanted, 1024) + 1
        restore = (self.is_wanted(now) or self._is_restored(now)) and seen.free <= seen.low + min(gap // 2, 4096)
        if not wanted and not restore:
            return False
        if self.is_wanted(now):
            self._asked_at = now
        self.asked += 1
        if not self._asks_without:
            self._first_without = now
        self._asks_without += 1
        return True

    def give_up(self, why: str, now: int) -> None:
        """Send no requests to the node for a while, since they have no effect."""
        self.reason = self._given_up = why
        self._given_up_until, self._asks_without = now + _TRY_AGAIN_MS, 0

    def _judge(self, seen: Reading, now: int) -> None:
        """Determine whether a request can work."""
        if self._demoted is None or seen.demoted > self._demoted:
            self._asks_without, self._given_up_until = 0, now
            if self._demoted is not None:
                self._demoted_at = now
        self._demoted = seen.demoted
        if self._asks_without >= _STALLED_ASKS and now - self._first_without >= _STALLED_MS:
            seconds = _STALLED_MS // 1000
            self.give_up(f"node {self._nid} has demoted nothing for {seconds} s despite requests", now)
        if seen.slow_room < _SLOW_ROOM:
            self.reason = f"node {self._nid} cannot demote: the slow nodes are short of free memory"
        else:
            self.reason = self._given_up if now < self._given_up_until else ""
