"""Random configurations: each gives settings, or one line that names the error."""

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.daemon import config
from pghotd.settings.table import ConfigError
from tests.program.daemons import ROOT

DOCUMENTED = [(ROOT / "docs" / name).read_text() for name in ("pghotd.toml", "pghotd-linux.toml")]

KEYS = sorted(
    {
        *("pghot", "memory", "sources", "mount", "state", "metrics", "node", "process", "watch", "target", "procscan"),
        *("workload", "damon", "idle", "softdirty", "perf", "numab2", "kpageflags"),
        *(line.partition("=")[0].strip("# ") for text in DOCUMENTED for line in text.splitlines() if "=" in line),
    }
)
SCALARS = (
    st.none().map(lambda _: "")
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["model", "linux", "default", "precise", "top", "lower", "4G", "128M", "/x", "0", "hwhints"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def error_of(call, *arguments):
    """Return the message of a ConfigError, or "" without one; nothing else may be raised."""
    try:
        call(*arguments)
    except ConfigError as error:
        return str(error)
    return ""


def is_empty_or_one_line_about(file, text):
    return not text or (text.startswith(f"{file}: ") and "\n" not in text)


def read(values):
    assert is_empty_or_one_line_about("test.toml", error_of(config.parse, values, "test.toml", None, []))


@settings(max_examples=1500, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_random_tables_give_settings_or_one_line(values):
    read(values)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(DOCUMENTED), st.data())
def test_a_documented_file_with_one_change_gives_settings_or_one_line(text, data):
    values = tomllib.loads(text)
    place = values
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    what = data.draw(st.sampled_from(["change", "remove", "add"]))
    if what == "remove":
        del place[key]
    elif what == "change" or isinstance(place, list):
        place[key] = data.draw(VALUES)
    else:
        place[data.draw(st.sampled_from(KEYS) | st.text(max_size=5))] = data.draw(VALUES)
    read(values)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.sampled_from(DOCUMENTED)
    .map(str.encode)
    .flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end]))
)
def test_random_bytes_in_a_file_give_settings_or_one_line(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("config") / "pghotd.toml"
    file.write_bytes(data)
    assert is_empty_or_one_line_about(file, error_of(config.load, file, None, []))
