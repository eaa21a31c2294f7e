"""Rows on a console, and tables of rows."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.rows import Point, Row, parse, table

_shares = st.floats(0, 1)
_counts = st.integers(0, 2**40)
_points = st.builds(Point, st.floats(0, 1000), _shares, _shares, _counts, _counts)
_rows = st.builds(
    Row,
    scenario=st.text(max_size=20),
    mover=st.sampled_from(["none", "numa_balancing", "pghotd"]),
    run=st.integers(1, 9),
    seconds_to_90=st.none() | st.floats(0, 1000),
    points=st.lists(_points, min_size=1, max_size=4).map(tuple),
    covered_ppm=st.none() | st.integers(0, 10**6),
    daemon_cpu_s=st.none() | st.floats(0, 1000),
    where=st.sampled_from(["guest", "model"]),
    more=st.dictionaries(st.text(max_size=8), st.none() | _counts | _shares | st.text(max_size=8), max_size=3),
)

ROW = Row("a sweep", "pghotd", 2, 3.25, (Point(10.1, 1, 0.5, 7, 2), Point(60, 0.9, 1, 8, 3)), more={"kept": None})


@given(_rows)
def test_a_row_is_read_back_from_a_console(row):
    line = row.line()
    assert "\n" not in line
    assert parse(f"[   12.5] {line}") == row


def test_other_and_torn_lines_are_not_rows():
    assert parse("row by row") is None
    assert parse("figure row 3") is None
    assert parse(ROW.line()[:-5]) is None
    assert parse("row " + json.dumps({"scenario": "x"})) is None


def test_points_are_found_by_time():
    assert ROW.at(10) == ROW.points[0]
    assert ROW.at(11) == ROW.at(60) == ROW.last


def test_a_table_has_one_line_of_figures_for_each_row():
    text = table([ROW, Row("b", "none", 1, None, (Point(10, 0, 1, 0, 0),), 990_000, 12.0, where="model")])
    headings, first, second = text.splitlines()
    for words in ("scenario", "mover", "covered", "CPU"):
        assert words in headings
    for words in ("a sweep", "3.2 s", "10s:1.000/0.500 60s:0.900/1.000", "kept=never"):
        assert words in first
    for words in ("none (model)", "never", "99.0 %", "12.0 s"):
        assert words in second
    assert first.index("pghotd") == second.index("none") == headings.index("mover")
