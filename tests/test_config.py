"""Configurations: every key, every refusal with its remedy, and the commented files in docs/."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.daemon import config
from pghotd.engine.tunables import TUNABLES
from pghotd.geometry import PAGES_PER_GB
from pghotd.manual.documented import comments, documented
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.names import MOUNTPOINT
from pghotd.procfs.process_targets import Target
from pghotd.settings.table import ConfigError
from pghotd.sources.damon.damon import DamonSettings
from pghotd.sources.registry import DRIVERS

DOCUMENTED = Path(__file__).parents[1] / "docs" / "pghotd.toml"
LINUX = DOCUMENTED.with_name("pghotd-linux.toml")
NODE = '[[memory.node]]\nnid = 0\nsize = "1G"\ntier = "top"\ndistance = [10]\n'


def parse(text, mode=None, options=()):
    return config.parse(tomllib.loads(text), "test.toml", mode, list(options))


def test_without_a_file_the_built_in_machine_has_1g_top_and_4g_lower(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "CONFIG_FILE", tmp_path / "absent.toml")
    settings = config.load(None, None, [])
    assert [(node.nid, node.pages // PAGES_PER_GB, node.tier) for node in settings.memory.nodes] == [
        (0, 1, "top"),
        (1, 4, "lower"),
    ]
    assert (settings.mode, settings.revision, settings.mountpoint) == ("default", "v6", "/run/pghot")


def test_nodes_without_distances_are_ten_from_themselves_and_twenty_from_others():
    nodes = NODE.replace("distance = [10]\n", "")
    nodes += nodes.replace("nid = 0", "nid = 3") + '[[memory.node]]\nnid = 5\nsize = "1G"\ntier = "lower"\n'
    assert [dict(node.distances) for node in parse(nodes + "distance = [30, 40, 10]\n").memory.nodes] == [
        {0: 10, 3: 20, 5: 20},
        {0: 20, 3: 10, 5: 20},
        {0: 30, 3: 40, 5: 10},
    ]


def test_the_default_file_is_read_when_it_is_there(monkeypatch, tmp_path):
    file = tmp_path / "pghotd.toml"
    file.write_text('[pghot]\nmode = "precise"\n')
    monkeypatch.setattr(config, "CONFIG_FILE", file)
    assert config.load(None, None, []).mode == "precise"


def test_precedence_is_default_file_set():
    text = "[pghot]\nfreq_threshold = 3\nkmigrated_sleep_ms = 200\n"
    settings = parse(text, options=["kmigrated_sleep_ms=0x12c", "target_nid=0"])
    assert settings.tunables == {"freq_threshold": 3, "kmigrated_sleep_ms": 300, "target_nid": 0}
    assert parse('[pghot]\nmode = "precise"\n', "default").mode == "default"


@pytest.mark.parametrize("file", [DOCUMENTED, LINUX])
def test_the_documented_files_have_every_table_and_key_with_the_comment_of_its_declaration(file):
    text = file.read_text()
    backend = tomllib.loads(text)["memory"]["backend"]
    assert documented(text) == text
    mentioned, table = set(), ""
    for line in text.splitlines():
        if header := re.fullmatch(r"(?:# )?\[+([a-z0-9_.]+)\]+", line):
            mentioned.add(table := header[1])
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            mentioned.add(f"{table}.{key[1]}")
    # The Linux file leaves out what is the same as in the other one.
    other = ("pghot", "mount", "state", "metrics") if file == LINUX else ()
    wanted = {path for path in comments(backend) if not path.startswith(other)}
    foreign = {name for name, driver in DRIVERS.items() if driver.backend != backend}
    wanted = {path for path in wanted if not (path.startswith("sources.") and path.split(".")[1] in foreign)}
    assert wanted <= mentioned


def test_defaults_in_the_documented_file_are_the_defaults():
    settings = config.load(DOCUMENTED, None, [])
    top, lower = settings.memory.nodes
    assert (top, replace(lower, pages=4 * PAGES_PER_GB)) == config.BUILT_IN_MACHINE.nodes
    assert settings.memory.move_ns == config.BUILT_IN_MACHINE.move_ns
    assert {name: TUNABLES[name].default.of("default") for name in TUNABLES} == dict(settings.tunables)
    assert settings.mountpoint == MOUNTPOINT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[pghot]\nfrequency = 1\n",
            "test.toml: pghot.frequency: unknown key; known keys: mode, revision,",
        ),
        ("[pgh]\n", "test.toml: pgh: unknown key; known keys: pghot, memory, sources, mount"),
        ('[pghot]\nmode = "fast"\n', "test.toml: pghot.mode: 'fast' is not one of default, precise"),
        ('[pghot]\nrevision = "v7"\n', "test.toml: pghot.revision: 'v7' is not one of v6, v8"),
        ("[pghot]\nfreq_threshold = 4\n", "test.toml: pghot.freq_threshold: 4 is not in 1..3"),
        ("[pghot]\nfreq_threshold = true\n", "test.toml: pghot.freq_threshold: True is not an integer"),
        ("[pghot]\ntarget_nid = 1\n", "test.toml: pghot.target_nid: 1 is not a top-tier node; top-tier nodes: 0"),
        ("[pghot]\ntarget_nid = -2\n", "test.toml: pghot.target_nid: -2 is not an integer in -1..4294967296"),
        (
            "[pghot]\ntarget_nid = -1\ntarget_policy = 0\n",
            "test.toml: target_policy 0 contradicts target_nid -1: leave target_policy out",
        ),
        ('[pghot]\nenabled_sources = ["ibs"]\n', "test.toml: pghot.enabled_sources: 'ibs' is not one of hintfaults,"),
        ("[pghot]\nenabled_sources = 3\n", "test.toml: pghot.enabled_sources: 3 is not a list"),
        ('[memory]\nbackend = "numa"\n', "test.toml: memory.backend: 'numa' is not one of model"),
        ("[memory]\nnode = 3\n", "test.toml: memory.node: 3 is not a list"),
        (NODE.replace("1G", "100M"), "test.toml: memory.node[0].size: '100M' is not a positive multiple of 128M"),
        (NODE.replace("1G", "1GB"), "test.toml: memory.node[0].size: '1GB' is not a size like 512M or 4G"),
        (NODE.replace("top", "fast"), "test.toml: memory.node[0].tier: 'fast' is not one of top, lower"),
        (NODE.replace("top", "lower"), 'test.toml: memory.node: no node has tier = "top"'),
        (NODE.replace("[10]", "[10, 20]"), "test.toml: memory.node[0].distance: not one number for each of 1 nodes"),
        (
            NODE.replace("[10]", "[20]"),
            "test.toml: memory.node[0].distance: not one number for each of 1 node",
        ),
        (NODE.replace("nid = 0\n", ""), "test.toml: memory.node[0].nid: required key is missing"),
        (NODE + NODE, "test.toml: memory.node: nids are not in ascending order"),
        (NODE + "numa = 1\n", "test.toml: memory.node[0].numa: unknown key"),
        (
            '[[memory.process]]\nname = "a b"\nnode = 1\nsize = "4K"\n',
            "test.toml: memory.process[0].name: 'a b' is",
        ),
        (
            '[[memory.process]]\nname = "a"\nnode = 7\nsize = "4K"\n',
            "test.toml: memory.process[0].node: there is no",
        ),
        (
            '[[memory.process]]\nname = "a"\nnode = 1\nsize = "0"\n',
            "test.toml: memory.process[0].size: '0' is not a",
        ),
        (
            '[[memory.process]]\nname = "a"\nnode = 1\nsize = "4K"\nfolio_pages = 3\n',
            "test.toml: memory.process[0].folio_pages: 3 is not a power of two in 1..512",
        ),
        (
            '[[memory.process]]\nname = "a"\nnode = 1\nsize = "4K"\nbusy = 2\n',
            "test.toml: memory.process[0].busy: 2 is not a number from 0 to 1",
        ),
        ('[mount]\nmountpoint = "pghot"\n', "test.toml: mount.mountpoint: 'pghot' is not an absolute path"),
        ("[mount]\nallow_other = 1\n", "test.toml: mount.allow_other: 1 is neither true nor false"),
        ("[sources.damn]\n", "test.toml: sources.damn: unknown key; known keys:"),
        ("[sources.damon]\n", 'test.toml: sources.damon: needs memory.backend = "linux", but it is "model"'),
        ('[sources.workload]\nhot_size = "1G"\n', "test.toml: sources.workload.hot_size: larger than size"),
        ("[sources]\nworkload = 1\n", "test.toml: sources.workload: not a table"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("freq_threshold=9", "--set freq_threshold: 9 is not in 1..3"),
        ("freq_threshold=two", "--set freq_threshold: 'two' is not an unsigned integer"),
        ("freq_threshold", "--set freq_threshold: no value; the form is freq_threshold=VALUE"),
        ("speed=1", "--set speed=1: unknown tunable 'speed'; known tunables: enabled_sources,"),
        ("target_nid=1", "--set target_nid: 1 is not a top-tier node"),
    ],
)
def test_a_wrong_set_option_is_refused(option, message):
    with pytest.raises(ConfigError) as error:
        parse("", options=[option])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"), [(b"a = ", "Invalid value"), (b"\xff", "not UTF-8 text"), (None, "No such file")]
)
def test_an_invalid_or_missing_file_is_refused_with_its_name(tmp_path, content, message):
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        config.load(file, None, [])
    assert str(error.value).startswith(f"{file}: {message}")


TEXT = st.text("ab \n\0é", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["1G", "top", "v8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["pghot", "memory", "sources", "mount", "node", "process", "workload", "procscan", "target", "mode", "size", "nid"]
)


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES))))
def test_any_configuration_is_read_or_refused_in_one_line(values):
    message = "fuzz.toml: "
    try:
        config.parse(values, "fuzz.toml", None, [])
    except ConfigError as error:
        message = str(error)
    assert message.startswith("fuzz.toml: ")
    assert "\n" not in message


def test_the_documented_linux_backend_watches_nothing_and_is_a_dry_run():
    settings = config.load(LINUX, None, [])
    assert settings.memory == LinuxSettings()
    assert settings.memory.dry_run
    # All of them, with the defaults but for a quarter of the samples, which DAMON's intervals decide.
    assert settings.sources == {
        name: DamonSettings(min_nr_accesses=5) if name == "damon" else driver.table()
        for name, driver in DRIVERS.items()
        if driver.backend == "linux"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[memory.watch]]\n", "test.toml: memory.watch[0].all: give all = true, or at least one"),
        ("[[memory.watch]]\nall = true\npid = 1\n", "test.toml: memory.watch[0].all: give all = true, or at"),
        ('[[memory.watch]]\nprocess = "a"\nall = true\n', "test.toml: memory.watch[0].process: unknown key"),
        ("[[memory.node]]\n", "test.toml: memory.node: unknown key; known keys: backend, dry_run, lower_nodes"),
        ("[sources.workload]\n", 'test.toml: sources.workload: needs memory.backend = "model", but it is "linux"'),
        ("[sources.damon]\nsample_us = 200000\n", "test.toml: sources.damon.sample_us: longer than aggregation_us"),
        ("[sources.damon]\nmax_regions = 50\n", "test.toml: sources.damon.min_regions: more than max_regions"),
        ("[sources.softdirty]\nprocesses = [true]\n", "test.toml: sources.softdirty.processes: True is not"),
        ("[sources.perf]\nring_pages = 48\n", "test.toml: sources.perf.ring_pages: 48 is not a power of two"),
        ("[sources.perf]\ncpu_share = 2\n", "test.toml: sources.perf.cpu_share: 2 is not a number from"),
        ("[sources.numab2]\nhot = 2\n", "test.toml: sources.numab2.hot: unknown key; known keys: hot_ms,"),
    ],
)
def test_errors_of_a_linux_configuration(text, message):
    with pytest.raises(ConfigError) as error:
        parse(f'[memory]\nbackend = "linux"\n{text}')
    assert str(error.value).startswith(message)


def test_watch_entries_name_processes_and_whether_shared_pages_move():
    text = '[memory]\nbackend = "linux"\n[[memory.watch]]\nname = "db"\nshared = true\n[[memory.watch]]\nall = true\n'
    assert parse(text).memory.watches == (Watch(Target(name="db"), shared=True), Watch(Target()))


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("record_ageing = 1\npromote_freq_window_ms = 3600", [], "3600 is not in 1000..3584 while record_ageing is on"),
        ("promote_freq_window_ms = 3600", ["record_ageing=1"], "3600 is not in 1000..3584 while record_ageing is on"),
        ('[memory]\nbackend = "linux"\n[pghot]\npromote_freq_window_ms = 3600', [], "3600 is not in 1000..3584 while"),
        ('[memory]\nbackend = "linux"\n[pghot]\nrecord_ageing = 0\npromote_freq_window_ms = 3600', [], None),
    ],
)
def test_tunables_are_checked_together(text, options, why):
    text = text if text.startswith("[") else f"[pghot]\n{text}\n"
    if why is None:
        assert parse(text, options=options).tunables["promote_freq_window_ms"] == 3600
    else:
        with pytest.raises(ConfigError, match=re.escape(why)):
            parse(text, options=options)
