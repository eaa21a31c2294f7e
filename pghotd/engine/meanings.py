"""Meaning of every counter, and recommended actions: for metrics, documentation and pghotctl.

The names are those of counters.VMSTAT; a test keeps the two in sync.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a counter counts, and what an operator may do if it grows."""

    what: str
    todo: str = ""


_RECORDED = {
    "accesses": "accesses recorded for pages of the lower tier",
    "hintfaults": "reports of NUMA hint faults",
    "hwhints": "reports of hardware samples: IBS, PEBS, CXL hotness monitors",
    "pgtscans": "reports of scans of accessed bits: idle page tracking, DAMON, soft-dirty",
    "fma": "reports of unmapped page-cache pages that were read or written",
}

_REFUSED = {
    "same_node": Meaning(
        "the page is already on its target node", "check target_nid: it must not be a lower-tier node"
    ),
    "age": Meaning(
        "last accessed longer ago than the adaptive threshold of its target",
        "a larger promote_rate_limit_MBps raises the threshold within minutes",
    ),
    "rate_limit": Meaning(
        "the target already had as many candidates in this second as the limit allows",
        "raise promote_rate_limit_MBps, or nothing: it is a limit",
    ),
    "dirty": Meaning(
        "a page-cache page that has to be written back first", "nothing: it can be promoted once it is clean"
    ),
    "no_space": Meaning(
        "the target has no more free than its high watermark, or hotter pages went first",
        "turn on demotion, or free memory on the target; with demotion on, room_reason in status shows why no room is "
        "made",
    ),
    "isolate": Meaning("pinned, or on no LRU list", "nothing, where devices pin memory"),
    "gone": Meaning("no longer where its record was: freed, moved, or swapped out", "nothing"),
    "unmapped": Meaning(
        "no watched process maps it, and only a mapped page can be moved from user space",
        "watch the process: [[memory.watch]]",
    ),
    "shared": Meaning(
        "several processes map it", "shared = true in the watch entry, if the move may affect all of them"
    ),
    "policy": Meaning(
        "its memory policy does not allow the target",
        "override_policy = true in the watch entry, or correct the policy",
    ),
    "cpuset": Meaning("its owner's cpuset does not allow the target", "add the node to cpuset.mems of the cgroup"),
    "no_block": Meaning(
        "a huge page, and the target has no free block of its size",
        "compact the target: echo 1 > /sys/devices/system/node/nodeN/compact",
    ),
    "backoff": Meaning(
        "it was busy twice in a row, and is not retried for a minute or longer", "nothing: it is pinned"
    ),
    "move_limit": Meaning("move_limit_MBps was reached", "raise move_limit_MBps, or nothing: it is a brake"),
    "not_tried": Meaning("the system call ended before it reached this page", "look for the failure that ended it"),
    "dry_run": Meaning("everything except the move was done", "dry_run = false, when the counters look right"),
    "cooled": Meaning("last accessed longer ago than recheck_age_ms when its turn came", "raise recheck_age_ms"),
    "returning": Meaning(
        "pages as hot as it, of the same owner, came back to slow memory within a minute of their promotion",
        "nothing: the memory in use exceeds the top tier, and moving more of it would gain nothing",
    ),
    "pingpong": Meaning("demoted less than pingpong_ms ago", "lower pingpong_ms, if it refuses pages that stay hot"),
}

_FAILED = {
    "ebusy": Meaning(
        "the page was in use elsewhere", "nothing, unless most moves fail this way: then memory is pinned"
    ),
    "enomem": Meaning("the target had no frame for it", "make room on the target"),
    "enoent": Meaning("it was unmapped before the move", "nothing"),
    "eagain": Meaning("it was locked or under writeback", "nothing"),
    "efault": Meaning("nothing was mapped there, or the zero page", "nothing"),
    "eacces": Meaning("mapped by several processes, or not allowed on the target", "nothing"),
    "eperm": Meaning("not allowed to move this process's pages", "give pghotd CAP_SYS_NICE and CAP_SYS_PTRACE"),
    "esrch": Meaning("its process had ended", "nothing"),
    "enodev": Meaning("the target is not an online node", "nothing: the topology is read again"),
    "einval": Meaning("the kernel rejected the call as invalid", "this is a bug: report it"),
    "eio": Meaning("it could not be written back", "check the kernel log for a failing disk"),
    "other": Meaning("another errno", "pghotctl explain shows which"),
}

_OTHER = {
    "pgpromote_success": Meaning("pages promoted"),
    "pgpromote_candidate": Meaning("pages that reached the rate limit, whether it let them through or not"),
    "pgpromote_candidate_nrl": Meaning("pages admitted without a limit, since the target had enough free memory"),
    "pgdemote_kswapd": Meaning(
        "pages demoted by kswapd",
        "if it grows as fast as pgpromote_success, pages bounce between the tiers: set pingpong_ms",
    ),
    "pgdemote_direct": Meaning("pages demoted by allocations that found no room", "the top tier is too full"),
    "pgmigrate_success": Meaning("pages moved, up or down"),
    "pgmigrate_fail": Meaning("pages that could not be moved, up or down"),
    "numa_pages_migrated": Meaning("pages promoted, as memory cgroups count them"),
    "pghotd_taken": Meaning("pages of the folios whose ready record was taken: each is promoted, refused or failed"),
    "pghotd_in_flight": Meaning("pages taken and not yet moved, the only value here that can decrease"),
    "pghotd_inject_malformed": Meaning("incomplete last lines or records of inject files that could not be parsed"),
    "pghotd_throttled": Meaning(
        "periods of 10 s at whose end an owner's pages were held back, since half of them or more had come back",
        "the memory in use exceeds the top tier: raise freq_threshold, or nothing",
    ),
    "pghotd_aged": Meaning("records cleared before their ages wrapped (record_ageing)"),
    "pghotd_dropped_hugetlb": Meaning(
        "accesses to hugetlb pages, which are never moved: their pool belongs to the administrator who sized it",
        "give the pool memory of the top tier: nodeN/hugepages/hugepages-2048kB/nr_hugepages",
    ),
    "hwhint_total_events": Meaning("hardware samples, lost ones included"),
    "hwhint_useful_events": Meaning("hardware samples that were reported: accesses to tracked pages"),
    "hwhint_dropped_events": Meaning(
        "hardware samples that were lost, or without an address",
        "if most are lost: a larger ring_pages, or a longer period",
    ),
    "hwhint_dram_accesses": Meaning("hardware samples of accesses served by DRAM"),
    "hwhint_extmem_accesses": Meaning("hardware samples of accesses served by extended memory: CXL or PMem"),
    "pghotd_dropped_not_lru": Meaning(
        "accesses to pages of slow memory on no LRU list: free, or not eligible for promotion",
        "nothing; for injected accesses: inject pages in use, whose pfn/<PFN> shows lru 1",
    ),
    "pghotd_dropped_top_tier": Meaning(
        "accesses to pages of the top tier, which need no promotion",
        "nothing; for injected accesses: the pages of slow memory are in nodes/node<N>/spans",
    ),
    "pghotd_dropped_no_section": Meaning(
        "accesses to page frames in no online section of memory",
        "nothing; for injected accesses: the pages of slow memory are in nodes/node<N>/spans",
    ),
    "pghotd_dropped_own_node": Meaning(
        "accesses from the node that the page is on",
        "nothing; for injected accesses: report another node, or -1 where it is not known",
    ),
    "pghotd_moved_other": Meaning(
        "of the folios about to be moved one in 64 is compared with its page table entry: those found in another frame,"
        " in whose place 64 times as many others were moved",
        "if it grows with pgpromote_success: raise page_tables_share, so that mappings are read more often",
    ),
    "pghotd_kept": Meaning("pages of refused folios that got their record back (keep_refused)"),
}

MEANINGS: dict[str, Meaning] = {
    **{f"pghot_recorded_{name}": Meaning(what) for name, what in _RECORDED.items()},
    **{f"pghotd_refused_{reason}": meaning for reason, meaning in _REFUSED.items()},
    **{f"pghotd_failed_{code}": meaning for code, meaning in _FAILED.items()},
    **_OTHER,
}
