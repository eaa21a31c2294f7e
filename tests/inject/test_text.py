"""Lines that `inject` accepts and refuses, sentence by sentence (docs/control-tree.md)."""

import errno
import itertools

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.kinds import KINDS, PGTSCANS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.inject.binary import RECORD, InjectRawWriter
from pghotd.inject.text import InjectWriter
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node, two_nodes

S = PAGES_PER_SECTION
#: The first PFN of the lower-tier node of two_nodes(): 65536.
FIRST = 2 * S


def make_rig(mode="default") -> Rig:
    processes = [ProcessSpec("a", 1000, 1), ProcessSpec("huge", 1536, 1, folio_order=9)]
    return Rig(two_nodes(2, 2), processes, mode)


def contents(rig: Rig) -> object:
    return (
        dict(rig.counters.total),
        rig.pghot.store.node(1).records.tobytes(),
        rig.machine.frames.flags.tobytes(),
        rig.pghot.store.wakeups.hot.tobytes(),
    )


def write(writer: InjectWriter | InjectRawWriter, *pieces: bytes, close: bool = True) -> None:
    async def main() -> None:
        for piece in pieces:
            await writer.write(piece)
        if close:
            await writer.close()

    trio.run(main)


def inject(*pieces: bytes, mode="default", close: bool = True) -> Rig:
    rig = make_rig(mode)
    write(InjectWriter(rig.pghot, rig.time), *pieces, close=close)
    return rig


def frequencies(rig: Rig) -> dict[int, int]:
    """Return the frequency of each record, by its offset in the lower-tier node."""
    kept = rig.pghot.store.node(1).records
    where = np.flatnonzero(kept)
    return dict(zip(where.tolist(), rig.pghot.format.frequency(kept[where]).tolist(), strict=True))


@pytest.mark.parametrize(
    ("line", "kind", "accesses", "records"),
    [
        (b"65536", "hwhints", 1, {0: 1}),
        (b"0x10000", "hwhints", 1, {0: 1}),
        (b"0X1000a", "hwhints", 1, {10: 1}),
        (b"65536 0", "hwhints", 1, {0: 1}),
        (b"65536 -1", "hwhints", 1, {0: 1}),
        (b"65536 0x0 fma", "fma", 1, {0: 1}),
        (b"65536 fma", "fma", 1, {0: 1}),
        (b"65536 pgtscans 2", "pgtscans", 2, {0: 2}),
        (b"65536 0 hintfaults 65535", "hintfaults", 65535, {0: 3}),
        (b"65536 0 2", "hwhints", 2, {0: 2}),
        (b" \t65536+2\t\t-1  fma   0x2 \t# a comment", "fma", 4, {0: 2, 1: 2}),
        (b"65536#", "hwhints", 1, {0: 1}),
        (b"65536\r", "hwhints", 1, {0: 1}),
        (b"65536 1", "hwhints", 0, {}),  # from the page's own node
        (b"5", "hwhints", 0, {}),  # of the top tier
        (b"4503599627370495", "hwhints", 0, {}),  # in no section
        (b"4503599627370495+268435456", "hwhints", 0, {}),
        (b"0+268435456 fma 16", "fma", 16 * 1003, None),
        (b"0+65537 fma 65535", "fma", 65535, {0: 3}),
    ],
)
def test_a_well_formed_line_is_one_report(line, kind, accesses, records):
    rig = inject(line + b"\n")
    assert {name: rig.total(f"pghot_recorded_{name}") for name in KINDS} == {name: int(name == kind) for name in KINDS}
    assert rig.total("pghot_recorded_accesses") == accesses
    assert records is None or frequencies(rig) == records
    assert rig.total("pghotd_inject_malformed") == 0


@pytest.mark.parametrize(
    "text", [b"\n", b"\n\n \n\t\n", b"#\n", b"# 65536\n", b"  # x \xff\0 y\n", b"# a # b\n\n", b""]
)
def test_comments_and_empty_lines_report_nothing(text):
    assert not any(inject(text).counters.total.values())


@pytest.mark.parametrize(("pages", "folios"), [(1, 1), (268_435_456, 1003)])
def test_large_counts_of_large_ranges_add_up_exactly(pages, folios):
    rig = inject(b"65536+%d fma 4294967295\n65536 fma 4294967295\n65537 fma 65536\n" % pages)
    assert rig.total("pghot_recorded_accesses") == (folios + 1) * (2**32 - 1) + 65536
    assert rig.total("pghot_recorded_fma") == 3


BAD = [
    *(b"x", b"-1", b"-65536", b"+1", b"1+", b"1+ 2", b"1 +2", b"1++2", b"1+2+3", b"0x", b"0xg", b"1.5", b"1e3"),
    *(b"010", b"00", b"65536 01", b"65536 -2", b"65536 --1", b"65536 2147483648", b"65536 0 nmi", b"65536 FMA"),
    *(
        b"65536 0 hwhints 0",
        b"65536 0 hwhints 4294967296",
        b"65536 0 hwhints -1",
        b"65536 0 hwhints 1 1",
        b"65536 fma fma",
    ),
    *(b"65536 fma 0 1", b"4503599627370496", b"0x10000000000000", b"9" * 40, b"0x" + b"f" * 16, b"0x" + b"0" * 17),
    *(b"65536+0", b"65536+268435457", b"65536 0 hwhints 0x100000000", b"65536+-1"),
    *(b"65536,0", b"65536;", b"65536\0", b"\0", b"\xff", b"65536 0 hwhints 1 x", b"65536 // x", b"1" + b" " * 4096),
    *("６５５３６".encode(), "٣".encode(), b"65536 0 hw", b"65536 0 hwhintsx", b"65536hwhints", b"0x65536+0x0"),  # noqa: RUF001
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad[:20]))
@pytest.mark.parametrize("frame", [b"%b\n", b"65536\n%b\n65537\n", b"65536 fma\n" * 3000 + b"%b\n"])
def test_a_malformed_line_is_einval_and_nothing_of_the_write_is_recorded(bad, frame):
    rig = make_rig()
    before = contents(rig)
    with pytest.raises(OSError, match=r"\w") as error:
        write(InjectWriter(rig.pghot, rig.time), frame.replace(b"%b", bad))
    assert error.value.errno == errno.EINVAL
    assert contents(rig) == before


@pytest.mark.parametrize("nid", [1, 2, 5, 1023, 1024, 2**31 - 1])
def test_only_precision_mode_refuses_a_nid_that_cannot_access(nid):
    for mode, refused in (("precise", True), ("default", False)):
        rig = make_rig(mode)
        before = contents(rig)
        text = b"65536 0\n65537 %d\n" % nid
        if refused:
            with pytest.raises(OSError, match=r"\w"):
                write(InjectWriter(rig.pghot, rig.time), text)
            assert contents(rig) == before
        else:
            write(InjectWriter(rig.pghot, rig.time), text)
            assert rig.total("pghot_recorded_hwhints") == 2


def test_a_line_may_be_split_between_writes_anywhere():
    whole = b"65536+3 0 fma 2 # x\n\n0x10005\n65540 pgtscans\n"
    expected = contents(inject(whole))
    for first in range(len(whole) + 1):
        for second in range(first, len(whole) + 1, 7):
            assert contents(inject(whole[:first], whole[first:second], whole[second:])) == expected
    assert contents(inject(*(whole[i : i + 1] for i in range(len(whole))))) == expected


def test_the_beginning_of_a_line_waits_for_its_end():
    rig = inject(b"65536\n655", close=False)
    assert rig.total("pghot_recorded_hwhints") == 1
    assert frequencies(inject(b"65536\n655", b"37\n")) == {0: 1, 1: 1}


def test_after_einval_the_beginning_of_a_line_is_forgotten():
    for bad in (b"x\n", b"6\nx\n655"):
        rig = make_rig()
        writer = InjectWriter(rig.pghot, rig.time)
        write(writer, b"655", close=False)
        with pytest.raises(OSError, match=r"\w"):
            write(writer, bad, close=False)
        write(writer, b"65539\n", close=True)
        assert frequencies(rig) == {3: 1}
        assert rig.total("pghotd_inject_malformed") == 0


def test_each_open_file_has_its_own_incomplete_line():
    rig = make_rig()
    one, other = InjectWriter(rig.pghot, rig.time), InjectWriter(rig.pghot, rig.time)
    write(one, b"655", close=False)
    write(other, b"65537", close=False)
    write(one, b"38\n")
    write(other, b"\n")
    assert frequencies(rig) == {1: 1, 2: 1}


@pytest.mark.parametrize(("text", "malformed", "accesses"), [(b"65536", 0, 1), (b"65536 0 f", 1, 0), (b" ", 0, 0)])
def test_a_last_line_is_reported_at_close_or_counted_as_malformed(text, malformed, accesses):
    rig = inject(b"65537\n" + text)
    assert rig.total("pghotd_inject_malformed") == malformed
    assert rig.total("pghot_recorded_accesses") == 1 + accesses


def test_a_last_line_with_a_refused_nid_is_counted_too():
    rig = inject(b"65536 1", mode="precise")
    assert rig.total("pghotd_inject_malformed") == 1
    assert rig.total("pghot_recorded_hwhints") == 0


def test_a_line_has_at_most_4096_bytes():
    line = b"65536 # " + b"x" * 4088
    assert frequencies(inject(line + b"\n")) == {0: 1}
    assert frequencies(inject(line)) == {0: 1}
    assert frequencies(inject(line[:9], line[9:], b"\n")) == {0: 1}
    for pieces in ((line + b"x\n",), (line + b"x",), (line, b"x\n"), (line, b"x"), (b"\n" + b"#" * 131_071,)):
        rig = make_rig()
        before = contents(rig)
        with pytest.raises(OSError, match=r"\w"):
            write(InjectWriter(rig.pghot, rig.time), *pieces)
        assert contents(rig) == before


def test_a_range_is_one_report_and_each_folio_it_touches_gets_its_count_once():
    # 1000 small pages, then three folios of 512 from 1024 on; the range ends within the second.
    rig = inject(b"66530+1050 0 pgtscans 2\n")
    assert rig.total("pghot_recorded_pgtscans") == 1
    assert frequencies(rig) == {**dict.fromkeys(range(994, 1000), 2), 1024: 2, 1536: 2}
    assert rig.total("pghot_recorded_accesses") == 2 * 8
    assert frequencies(inject(b"67000+1\n")) == frequencies(inject(b"67000\n")) == {1024: 1}


def test_a_range_may_cross_sections_and_holes():
    rig = Rig(two_nodes(2, 4), [ProcessSpec("a", 4 * S, 1)])
    rig.machine.hotplug.set_online(1, False)
    write(InjectWriter(rig.pghot, rig.time), b"10+%d\n" % (3 * S - 6))
    assert rig.total("pghot_recorded_accesses") == S + 4
    assert np.flatnonzero(rig.pghot.store.node(1).records).tolist() == list(range(S + 4))
    dropped = {"top_tier": S - 10, "no_section": S}
    assert {reason: n for reason, n in rig.counters.dropped().items() if n} == dropped


def test_dropped_injected_accesses_are_counted_by_reason():
    rig = make_rig()
    # Accesses of another source do not count as injected.
    rig.pghot.recorder.record(np.array([3, FIRST + 5000]), -1, PGTSCANS, rig.time.now)
    write(InjectWriter(rig.pghot, rig.time), b"%d\n%d -1 fma 5\n3+4 -1 fma 2\n" % (FIRST, FIRST + 5000))
    write(InjectWriter(rig.pghot, rig.time), b"%d+10 -1\n%d 1\n" % (4 * S - 6, FIRST))
    assert rig.counters.injected_dropped == {
        **{"hugetlb": 0, "not_lru": 5 + 6, "top_tier": 8, "no_section": 4, "own_node": 1}
    }
    assert rig.counters.dropped() == rig.counters.injected_dropped | {"not_lru": 12, "top_tier": 9}
    assert rig.total("pghot_recorded_accesses") == 1


def test_an_injected_access_sets_the_accessed_bit_on_any_tier_and_changes_no_figure():
    rig = Rig(two_nodes(2, 2), [ProcessSpec("a", 10, 0), ProcessSpec("b", 10, 1)])
    rig.pghot.tunables.enabled_sources = 0
    write(InjectWriter(rig.pghot, rig.time), b"3\n65537\n65540+2\n")
    assert np.flatnonzero(rig.machine.frames.flags & Flag.ACCESSED).tolist() == [3, FIRST + 1, FIRST + 4, FIRST + 5]
    assert not any(rig.counters.total.values())
    assert not any(rig.machine.figures.report().values())


def test_accesses_are_recorded_in_order():
    nodes = (node(0, 1, "top", (10, 20, 30)), node(1, 1, "top", (20, 10, 30)), node(2, 1, "lower", (30, 30, 10)))
    for text, last in ((b"65536 0\n65536+2 1\n65536 0\n", 0), (b"65536 0\n65536 0\n65535+2 1\n", 1)):
        rig = Rig(nodes, [ProcessSpec("a", 10, 2)], "precise")
        write(InjectWriter(rig.pghot, rig.time), text)
        assert rig.pghot.format.nid(rig.pghot.store.node(2).records[:1], -1)[0] == last


@pytest.mark.parametrize("text", [b"65536\n" * 20_000, b"65536+2\n" * 1000, b"0+131072\n", b"65536 fma\n" * 9000])
async def test_a_long_write_yields_to_other_tasks(text, nursery):
    rig = make_rig()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(count)
    await InjectWriter(rig.pghot, rig.time).write(text)
    assert turns >= 2
    nursery.cancel_scope.cancel()


async def test_a_section_may_go_offline_during_the_walk_of_a_range(nursery):
    rig = Rig(two_nodes(3, 3), [ProcessSpec("a", 10, 1)])

    async def unplug() -> None:
        await trio.lowlevel.checkpoint()
        rig.machine.hotplug.set_online(5, False)

    nursery.start_soon(unplug)
    await InjectWriter(rig.pghot, rig.time).write(b"0+196608\n")
    assert rig.total("pghot_recorded_accesses") == 10
    assert not rig.machine.hotplug.is_online(5)
    assert rig.total("pghotd_dropped_no_section") == S
    assert rig.total("pghotd_dropped_top_tier") == 3 * S


LINES = st.lists(
    st.tuples(
        st.integers(FIRST - 2, FIRST + 2600) | st.integers(0, 2**52 - 1),
        st.integers(-1, 2),
        st.integers(0, 3),
        st.integers(1, 5),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(lines=LINES, cuts=st.lists(st.integers(0, 700), max_size=4), mode=st.sampled_from(["default", "precise"]))
def test_text_and_raw_give_equal_results(lines, cuts, mode):
    if mode == "precise":
        lines = [(pfn, min(nid, 0), kind, count) for pfn, nid, kind, count in lines]
    text = b"".join(b"%d %d %b %d\n" % (pfn, nid, KINDS[kind].encode(), n) for pfn, nid, kind, n in lines)
    raw = np.array(lines, dtype=RECORD).tobytes()
    results = []
    for writer, data in ((InjectWriter, text), (InjectRawWriter, raw)):
        rig = make_rig(mode)
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
        write(writer(rig.pghot, rig.time), *pieces)
        results.append(contents(rig))
    assert results[0] == results[1]


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=60) | st.text("0123456789 +-x#fma\n\n\n", max_size=40).map(str.encode),
        min_size=1,
        max_size=6,
    )
)
def test_random_bytes_are_reported_or_refused_with_einval_and_no_effect(pieces):
    rig = make_rig()
    writer = InjectWriter(rig.pghot, rig.time)
    for piece in pieces:
        before = contents(rig)
        try:
            write(writer, piece, close=False)
        except OSError as error:
            code = error.errno
        else:
            continue
        assert code == errno.EINVAL
        assert contents(rig) == before
    write(writer)
    assert rig.total("pghotd_inject_malformed") <= 1
