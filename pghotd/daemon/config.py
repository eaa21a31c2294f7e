"""The configuration: all tables and keys, read and checked as a whole before anything is started.

Precedence, low to high: default, file, --set, control file. A wrong key or value is reported in one line with the file,
the key and what would be right. Each part declares its own keys: TABLES names them all, and the comments of the
documented configurations are those of the declarations (pghotd/manual/documented.py).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pghotd.engine.decisions import DECISIONS
from pghotd.engine.kinds import kind_bits
from pghotd.engine.modes import DEFAULT_MODE, MODES, Mode
from pghotd.engine.records import Revision
from pghotd.engine.tunables import TUNABLES, wrong_value
from pghotd.engine.tunables import parse as parse_tunable
from pghotd.geometry import NUMA_NO_NODE
from pghotd.memory.model.spec import BUILT_IN_MACHINE
from pghotd.memory.registry import BACKENDS, DEFAULT_BACKEND, MemorySettings, memory_settings
from pghotd.metrics.settings import MetricsSettings
from pghotd.names import MOUNTPOINT, SOURCE
from pghotd.settings.table import ConfigError, Key, SettingsTable
from pghotd.settings.values import absolute_path, boolean, choice, integer, list_of, word
from pghotd.sources.registry import DRIVERS, SourceSettings, source_settings

CONFIG_FILE = Path("/etc/pghotd.toml")


@dataclass(frozen=True, slots=True)
class PghotTable:
    """The engine. Each tunable is also a control file, where it can be changed while pghotd runs."""

    mode: Annotated[
        Mode,
        Key(
            choice(tuple(MODES)),
            'Record of each page: "default", 1 byte; or "precise", 4 bytes with the accessing node and the time in ms.',
        ),
    ] = DEFAULT_MODE
    revision: Annotated[
        Revision,
        Key(
            choice(Revision),
            'When a page is ready for promotion, by revision of the kernel series: "v6", once ready it stays ready'
            ' until it is taken; "v8", it is ready only while its frequency reaches the threshold; "v8-nid", as v8, and'
            " in precise mode an access from an unknown node does not replace a known node, and a page without a known"
            " node goes to the target_nid in effect when it is taken.",
        ),
    ] = "v6"
    decisions: Annotated[
        int,
        Key(
            integer(0, 1 << 22),
            "Number of kmigrated's last decisions kept for pghotctl explain: 26 bytes each, plus data"
            " common to a batch; 0 for none.",
        ),
    ] = DECISIONS


@dataclass(frozen=True, slots=True)
class MountTable:
    """The control tree."""

    mountpoint: Annotated[
        str, Key(absolute_path, "An empty directory; it is created if only its last component is missing.")
    ] = MOUNTPOINT
    allow_other: Annotated[
        bool | None,
        Key(
            boolean,
            "Whether other users can access the tree, as far as file modes permit. Default: true when root runs pghotd,"
            " else false.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class StateTable:
    """State kept over a restart."""

    save: Annotated[
        bool,
        Key(
            boolean,
            "Keep tunables written at run time in the service's state directory. They take precedence over this file,"
            " but not over --set. Default: false.",
        ),
    ] = False


#: The declaration of every table, by its path. That of [memory] depends on the backend.
TABLES: dict[str, type[Any]] = {
    "pghot": PghotTable,
    **{f"sources.{name}": driver.table for name, driver in DRIVERS.items()},
    "mount": MountTable,
    "state": StateTable,
    "metrics": MetricsSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration; `tunables` has only those that differ from their defaults for the mode."""

    mode: Mode = DEFAULT_MODE
    revision: Revision = "v6"
    #: Number of decisions remembered for `explain`.
    decisions: int = DECISIONS
    tunables: Mapping[str, int] = field(default_factory=dict)
    backend: str = DEFAULT_BACKEND
    memory: MemorySettings = BUILT_IN_MACHINE
    sources: SourceSettings = field(default_factory=dict)
    mountpoint: str = MOUNTPOINT
    #: None: on if root runs the daemon, else off.
    allow_other: bool | None = None
    #: Whether tunables written at run time are kept over a restart.
    state: bool = False
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    #: Names given by --set, which take precedence over a saved state.
    set_options: frozenset[str] = frozenset()
    #: The file's tables as read, to find what differs in another reading.
    raw: Mapping[str, Any] = field(default_factory=dict)
    #: The mounted device in mount tables, from the command line.
    source: str = SOURCE


def load(file: Path | None, mode: Mode | None, set_options: list[str]) -> Settings:
    """Return the settings of a file (None: the default one if it is there), with `mode` and --set over it.

    ConfigError has the reason; nothing has been started.
    """
    if file is None:
        file = CONFIG_FILE if CONFIG_FILE.exists() else None
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_bytes().decode())
        except OSError as wrong:
            raise ConfigError(f"{file}: {wrong.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{file}: not UTF-8 text") from None
        except tomllib.TOMLDecodeError as wrong:
            raise ConfigError(f"{file}: {wrong}") from None
    return parse(values, str(file), mode, set_options)


def parse(values: dict[str, Any], file: str, mode: Mode | None, set_options: list[str]) -> Settings:
    """Return the settings of a configuration file's tables, with `mode` and --set over them."""
    root = SettingsTable(values, file, "")
    pghot, memory, sources = root.table("pghot"), root.table("memory"), root.table("sources")
    mount, state, metrics = (root.table(name) for name in ("mount", "state", "metrics"))
    root.finish()

    configured = {
        name: pghot.take(name, _kinds if name == "enabled_sources" else integer(min(TUNABLES[name].low, 0), 2**32))
        for name in TUNABLES
        if pghot.has(name)
    }
    engine = pghot.read(PghotTable, known=TUNABLES)
    mode = engine.mode if mode is None else mode
    backend, machine = memory_settings(memory)
    by_option = dict(map(_set_option, set_options))
    wanted = {**configured, **by_option}
    if wanted.get("target_nid") == NUMA_NO_NODE and wanted.get("target_policy") == 0:
        raise ConfigError(f"{file}: target_policy 0 contradicts target_nid -1: leave target_policy out")
    # Check each with all others at their final values, since a range may depend on another tunable.
    real = BACKENDS[backend].real_nodes
    effective = {name: wanted.get(name, one.default_for(mode, real)) for name, one in TUNABLES.items()}
    # The nodes of a real machine are known only when it is examined: see run.build().
    top = None if machine.nodes is None else [node.nid for node in machine.nodes if node.tier == "top"]
    for name, value in configured.items():
        if (wrong := _wrong(name, effective | {name: value}, mode, top)) is not None:
            raise pghot.error(name, wrong)
    for name in by_option:
        if (wrong := _wrong(name, effective, mode, top)) is not None:
            raise ConfigError(f"--set {name}: {wrong}")
    nids = None if machine.nodes is None else [node.nid for node in machine.nodes]
    where = mount.read(MountTable)
    return Settings(
        mode=mode,
        revision=engine.revision,
        decisions=engine.decisions,
        tunables=wanted,
        backend=backend,
        memory=machine,
        sources=source_settings(sources, backend, nids),
        mountpoint=where.mountpoint,
        allow_other=where.allow_other,
        state=state.read(StateTable).save,
        metrics=metrics.read(MetricsSettings),
        set_options=frozenset(by_option),
        raw=values,
    )


def _kinds(value: Any) -> int:
    return kind_bits(list(list_of(word)(value)))


def _set_option(option: str) -> tuple[str, int]:
    name, equals, text = option.partition("=")
    if name not in TUNABLES:
        raise ConfigError(f"--set {option}: unknown tunable {name!r}; known tunables: {', '.join(TUNABLES)}")
    if not equals:
        raise ConfigError(f"--set {option}: no value; the form is {name}=VALUE")
    try:
        return name, parse_tunable(name, text.encode(errors="replace"))
    except OSError as wrong:
        raise ConfigError(f"--set {name}: {text!r} is {wrong.strerror}") from None


def _wrong(name: str, values: Mapping[str, int], mode: Mode, top: list[int] | None) -> str | None:
    """Return what is wrong with a tunable's value given all values, None if nothing is."""
    if name == "target_nid" and top is not None:
        value = values[name]
        if value in (NUMA_NO_NODE, *top):
            return None
        return f"{value} is not a top-tier node; top-tier nodes: {', '.join(map(str, top))}"
    return wrong_value(name, values, mode)
