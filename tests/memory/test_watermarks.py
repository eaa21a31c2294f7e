"""Watermarks, compared with values computed by hand (docs/rules.md, section 6)."""

import pytest

from pghotd.memory.model.watermarks import Watermarks, watermarks

GIB = 262_144


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (0, Watermarks(0, 0, 0, 0)),
        # 4 MiB: sqrt(16 x 4096) = 256 KiB; a quarter of it is more than 0.1 %.
        (1024, Watermarks(64, 80, 96, 112)),
        # 256 KiB: sqrt(16 x 256) = 64, raised to 128 KiB.
        (64, Watermarks(32, 40, 48, 56)),
        # 128 MiB: sqrt(16 x 131072) = 1448.15 KiB.
        (32_768, Watermarks(362, 452, 542, 632)),
        # 1 GiB: sqrt(16 x 1048576) = 4096 KiB; 0.1 % of the pages is 262, a quarter of min 256.
        (GIB, Watermarks(1024, 1286, 1548, 1810)),
        # 64 GiB: 32768 KiB; 0.1 % is 16777.
        (64 * GIB, Watermarks(8192, 24_969, 41_746, 58_523)),
        # 4 TiB: sqrt(2^36) is exactly 256 MiB; larger sizes are capped there.
        (4096 * GIB, Watermarks(65_536, 65_536 + 1_073_741, 65_536 + 2 * 1_073_741, 65_536 + 3 * 1_073_741)),
        (16_384 * GIB, Watermarks(65_536, 4_360_503, 8_655_470, 12_950_437)),
    ],
)
def test_watermarks_of_a_size(pages, expected):
    assert watermarks(pages) == expected
