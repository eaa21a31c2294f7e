"""Sizes and null values of Linux memory on which all other modules are based."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

#: A section is the unit in which memory and its hotness records come and go (docs/rules.md, section 1).
SECTION_SHIFT = 15
PAGES_PER_SECTION = 1 << SECTION_SHIFT
SECTION_SIZE = PAGES_PER_SECTION * PAGE_SIZE

#: All PFNs are below this: physical addresses have at most 52 + 12 bits here.
PFN_LIMIT = 1 << 52

PAGES_PER_MB = (1 << 20) // PAGE_SIZE
PAGES_PER_GB = (1 << 30) // PAGE_SIZE

NUMA_NO_NODE = -1
MAX_NUMNODES = 1024

#: The largest folio is a 2 MiB huge page; folios are naturally aligned powers of two, as in the buddy allocator.
MAX_FOLIO_ORDER = 9
MAX_FOLIO_PAGES = 1 << MAX_FOLIO_ORDER
