"""What the kernel accepts as an unsigned integer, and what not (docs/rules.md, section 4)."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.kstrtox import kstrtouint

GOOD = {
    b"0": 0,
    b"7": 7,
    b"+7": 7,
    b"7\n": 7,
    b"0x1f": 31,
    b"0X1F\n": 31,
    b"+0xfF": 255,
    b"010": 8,
    b"00": 0,
    b"+017\n": 15,
    b"4294967295": 2**32 - 1,
    b"0xffffffff": 2**32 - 1,
    b"037777777777": 2**32 - 1,
    b"0x0": 0,
    b"0x000\n": 0,
    b"0x" + b"0" * 100_000 + b"5": 5,
    b"0" * 100_000 + b"17": 15,
}
BAD = [
    *(b"", b"\n", b"+", b"-", b"-1", b"-0", b"++1", b"+-1", b" 1", b"1 ", b"\t1", b"1\n\n", b"1\r\n", b"1\r", b"\n1"),
    *(
        b"0x",
        b"0x\n",
        b"0" * 131_071 + b"x",
        b"0xg",
        b"x1",
        b"08",
        b"09",
        b"018",
        b"0b1",
        b"0o7",
        b"1e3",
        b"1.0",
        b"1_000",
        b"1,000",
    ),
    *(b"ten", b"1\0", b"\0", b"\0" * 100, b"1 2", b"true", b"\xff", "１".encode(), "٣".encode()),  # noqa: RUF001
    *(b"4294967296", b"0x100000000", b"040000000000", b"9" * 30, b"9" * 131_072, b"0x" + b"f" * 131_072),
    *(b"7" * 131_071 + b"x", b"18446744073709551616", b"18446744073709551617"),
]


@pytest.mark.parametrize(("text", "value"), GOOD.items(), ids=lambda value: repr(value)[:20])
def test_a_number(text, value):
    assert kstrtouint(text) == value


@pytest.mark.parametrize("text", BAD, ids=lambda value: repr(value)[:20])
def test_anything_else_is_einval(text):
    with pytest.raises(OSError, match=r"\w") as error:
        kstrtouint(text)
    assert error.value.errno == errno.EINVAL


@given(st.integers(0, 2**33), st.sampled_from(["{:d}", "0x{:x}", "0X{:X}", "0{:o}", "+{:d}", "{:d}\n", "+0{:o}\n"]))
def test_every_number_in_every_form(value, form):
    text = form.format(value).encode()
    if value < 2**32:
        assert kstrtouint(text) == value
    else:
        with pytest.raises(OSError, match=r"\w"):
            kstrtouint(text)


@given(st.binary(max_size=12) | st.text("+-0123456789xXaF \n", max_size=8).map(str.encode))
def test_random_bytes_are_a_number_or_einval(text):
    try:
        value = kstrtouint(text)
    except OSError as error:
        code = error.errno
    else:
        body = text.removesuffix(b"\n").removeprefix(b"+").lower()
        base = 16 if body.startswith(b"0x") else 8 if body.startswith(b"0") else 10
        assert body.isalnum()
        assert value == int(body, base)
        return
    assert code == errno.EINVAL
