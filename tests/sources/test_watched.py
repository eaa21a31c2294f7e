"""What procscan expects of a process between two readings."""

from types import SimpleNamespace
from typing import Any

import pytest

from pghotd.sources.model.procscan.watched import Watched


@pytest.mark.parametrize(("rss", "expected"), [(500, 300), (530, 330), (490, 290), (200, 0), (0, 0)])
def test_resident_pages_follow_the_figure_of_stat(rss, expected):
    nothing: Any = None
    watched = Watched(nothing, nothing)
    watched.resident, watched.rss_then = 300, 500
    stat: Any = SimpleNamespace(rss=rss)
    assert watched.expected(stat) == expected
