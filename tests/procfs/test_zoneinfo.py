"""Zones, free blocks and counters: what /proc shows of a node's memory."""

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.admission import has_free_space
from pghotd.memory.linux.readings.zones import present_pages, zones_of
from pghotd.procfs.buddyinfo import free_blocks, parse_buddyinfo, read_buddyinfo
from pghotd.procfs.vmstat import parse_vmstat, read_node_vmstat, read_vmstat
from pghotd.procfs.zoneinfo import parse_zoneinfo, read_zoneinfo


def zone(nid: int, name: str, free: int, protection: str, *, promo: str = "", managed: int = 5000, cma: int = 0) -> str:
    return (
        f"Node {nid}, zone {name:>8}\n"
        "  per-node stats\n      nr_free_pages 99999\n      high 7\n"
        f"  pages free     {free}\n        boost    0\n        min      20\n        low      25\n        high     31\n"
        f"{promo}"
        f"        spanned  9000\n        present  6000\n        managed  {managed}\n        cma      0\n"
        f"        protection: ({protection})\n"
        f"      nr_free_pages {free}\n      nr_free_cma  {cma}\n"
        "  pagesets\n    cpu: 0\n              count: 4\n              high:  77\n              min:   5\n"
    )


def empty(nid: int, name: str) -> str:
    return (
        f"Node {nid}, zone {name:>8}\n  pages free     0\n        min      0\n        low      0\n        high     0\n"
        "        spanned  0\n        present  0\n        managed  0\n        protection: (0, 0, 0, 0)\n"
    )


def test_figures_and_the_reserve_against_the_highest_zone():
    text = (
        zone(0, "DMA32", 1000, "0, 300, 400, 777", promo="        promo    38\n")
        + zone(0, "Normal", 2000, "0, 0, 55, 99")
        + empty(0, "Movable")
        + empty(0, "Device")
        + empty(1, "DMA32")
        + empty(1, "Normal")
        + zone(1, "Movable", 3000, "0, 0, 0, 0", cma=100)
        + empty(1, "Device")
    )
    zones = parse_zoneinfo(text.encode())
    assert [(z.nid, z.name) for z in zones][:4] == [(0, "DMA32"), (0, "Normal"), (0, "Movable"), (0, "Device")]
    first, second = zones[0], zones[1]
    assert (first.free, first.min, first.low, first.high, first.promo) == (1000, 20, 25, 31, 38)
    assert (first.present, first.managed, first.protection) == (6000, 5000, (0, 300, 400, 777))
    # The entry of Movable, the third zone, and not that of device memory.
    assert (first.reserve, second.reserve) == (400, 55)
    assert second.promo == 31 + (31 - 25)
    mine = zones_of(zones, 0)
    assert [(z.free, z.promo, z.protection) for z in mine] == [(1000, 38, 400), (2000, 37, 55)]
    # Node 1 has one zone with memory; free CMA pages are not free for other allocations.
    assert [(z.free, z.present) for z in zones_of(zones, 1)] == [(2900, 6000)]
    # Free CMA pages are room for a promotion, but not free space.
    (movable,) = zones_of(zones, 1)
    assert movable.room == 3000 - movable.high - movable.protection
    assert movable.room_above_low > movable.room
    assert has_free_space([replace(movable, free=movable.promo + 262_145 + movable.protection)], 0)
    assert not has_free_space([replace(movable, free=movable.promo + movable.protection, free_cma=1 << 30)], 0)
    assert (present_pages(zones, 0), present_pages(zones, 1), present_pages(zones, 2)) == (12_000, 6000, 0)
    assert zones_of([replace(second, free=5, free_cma=9)], 0)[0].free == 0


def test_without_a_movable_zone_the_largest_reserve_counts():
    assert parse_zoneinfo(zone(0, "Normal", 9, "0, 12, 5").encode())[0].reserve == 12
    assert parse_zoneinfo(zone(0, "Normal", 9, "").encode())[0].reserve == 0


def test_truncated_text_is_parsed():
    text = (zone(0, "DMA32", 1000, "0, 3") + zone(0, "Normal", 2000, "0, 0")).encode()
    for end in range(len(text)):
        for found in parse_zoneinfo(text[:end]):
            assert found.free in (1000, 2000)
            assert found.reserve in (0, 3)
    assert parse_zoneinfo(text.replace(b"managed", b"mangled")) == []


@given(st.binary(max_size=300))
def test_random_bytes_are_parsed(data):
    parse_zoneinfo(data)
    parse_zoneinfo(b"Node 0, zone   Normal\n  pages free 1\n" + data + b"\n        protection: (1, 2)\n")
    parse_buddyinfo(data)
    parse_vmstat(data)


def test_files_without_zones_are_an_error(tmp_path):
    for name, read in (("zoneinfo", read_zoneinfo), ("buddyinfo", read_buddyinfo)):
        with pytest.raises(FileNotFoundError):
            read(str(tmp_path))
        (tmp_path / name).touch()
        with pytest.raises(OSError, match="no zones") as caught:
            read(str(tmp_path))
        assert caught.value.errno == errno.EBADMSG


def test_larger_blocks_count_as_many_free_blocks_of_an_order():
    rows = parse_buddyinfo(
        b"Node 0, zone      DMA      1      0      2 \n"
        b"Node 0, zone   Normal      7      3      1      5 \n"
        b"Node 1, zone   Normal      0      0      0      0 \nnonsense\nNode 1, zone"
    )
    assert [(row.nid, row.zone, row.counts) for row in rows][:2] == [(0, "DMA", (1, 0, 2)), (0, "Normal", (7, 3, 1, 5))]
    assert free_blocks(rows, 0, 2) == 2 + 1 + 2 * 5
    assert free_blocks(rows, 0, 3) == 5
    assert (free_blocks(rows, 0, 9), free_blocks(rows, 1, 0), free_blocks(rows, 2, 0)) == (0, 0, 0)


def test_counters_are_parsed(tmp_path):
    text = b"nr_free_pages 12\npgpromote_success 0\nodd\n nr_x 5\nnr_y\nnr_z five\nnr_neg -3\n"
    (tmp_path / "vmstat").write_bytes(text)
    assert read_vmstat(str(tmp_path)) == {"nr_free_pages": 12, "pgpromote_success": 0, "nr_neg": -3}
    node = tmp_path / "devices/system/node/node1"
    node.mkdir(parents=True)
    (node / "vmstat").write_bytes(b"pgdemote_kswapd 4\n")
    assert read_node_vmstat(1, str(tmp_path)) == {"pgdemote_kswapd": 4}
    with pytest.raises(FileNotFoundError):
        read_node_vmstat(2, str(tmp_path))


def test_the_zones_of_this_machine():
    zones = read_zoneinfo()
    assert any(z.managed for z in zones)
    for z in zones:
        assert z.min <= z.low <= z.high <= z.promo
        assert not z.managed or z.managed <= z.present
    assert sum(1 for row in read_buddyinfo() if row.counts) == sum(1 for z in zones if z.present)
    assert read_vmstat()["nr_free_pages"] > 0
