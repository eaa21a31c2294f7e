"""The four kinds of sources. Bit numbers differ between kernel revisions, so everything else uses their names."""

#: In the order of their bits in `enabled_sources` and of their numbers in `inject_raw` (docs/rules.md, section 3).
KINDS: tuple[str, ...] = ("hintfaults", "hwhints", "pgtscans", "fma")
HINTFAULTS, HWHINTS, PGTSCANS, FMA = range(len(KINDS))
ALL_KINDS = (1 << len(KINDS)) - 1


def kind_bits(names: list[str]) -> int:
    """Return the `enabled_sources` value for the kinds in `names`; ValueError for an unknown name."""
    bits = 0
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name!r} is not one of {', '.join(KINDS)}")
        bits |= 1 << KINDS.index(name)
    return bits
