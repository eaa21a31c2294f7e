"""Read the configuration: all tables and keys, checked as a whole before anything is started.

Precedence, low to high: default, file, --set, control file. A wrong key or value is reported in one line with the file,
the key and what would be right. `docs/pghotd.toml` comments each key; a test checks it against what is read here.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pghotd.engine.decisions import DECISIONS
from pghotd.engine.kinds import kind_bits
from pghotd.engine.records import Revision
from pghotd.engine.tunables import TUNABLES, Mode, wrong_value
from pghotd.engine.tunables import parse as parse_tunable
from pghotd.geometry import NUMA_NO_NODE
from pghotd.memory.model.spec import MachineSpec
from pghotd.memory_settings import BUILT_IN_MACHINE, MemorySettings, memory_settings
from pghotd.metrics.settings import MetricsSettings
from pghotd.settings.table import (
    ConfigError,
    SettingsTable,
    boolean,
    choice,
    integer,
    list_of,
    word,
)
from pghotd.sources.settings import SourceSettings, source_settings

CONFIG_FILE = Path("/etc/pghotd.toml")
MOUNTPOINT = "/run/pghot"
SOURCE = "pghotd"


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration; `tunables` has only those that differ from their defaults for the mode."""

    mode: Mode = "default"
    revision: Revision = "v6"
    #: Number of decisions remembered for `explain`.
    decisions: int = DECISIONS
    tunables: Mapping[str, int] = field(default_factory=dict)
    memory: MemorySettings = BUILT_IN_MACHINE
    sources: SourceSettings = field(default_factory=SourceSettings)
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
            raise ConfigError(f"{file}: is not UTF-8 text") from None
        except tomllib.TOMLDecodeError as wrong:
            raise ConfigError(f"{file}: {wrong}") from None
    return parse(values, str(file), mode, set_options)


def parse(values: dict[str, Any], file: str, mode: Mode | None, set_options: list[str]) -> Settings:
    """Return the settings of a configuration file's tables, with `mode` and --set over them."""
    root = SettingsTable(values, file, "")
    pghot, memory, mount = root.table("pghot"), root.table("memory"), root.table("mount")
    sources, state, metrics = root.table("sources"), root.table("state"), root.table("metrics")
    root.finish(("pghot", "memory", "sources", "mount", "state", "metrics"))

    configured: Mode = pghot.take("mode", choice(Mode), "default")
    mode = configured if mode is None else mode
    revision: Revision = pghot.take("revision", choice(Revision), "v6")
    decisions = pghot.take("decisions", integer(0, 1 << 22), DECISIONS)
    machine = memory_settings(memory)
    # The nodes of a real machine are known only when it is examined: see daemon.build().
    model_nodes = machine.nodes if isinstance(machine, MachineSpec) else None
    top = None if model_nodes is None else [node.nid for node in model_nodes if node.tier == "top"]
    tunables = {
        name: pghot.take(name, _kinds if name == "enabled_sources" else integer(min(TUNABLES[name].low, 0), 2**32))
        for name in TUNABLES
        if pghot.has(name)
    }
    pghot.finish(("mode", "revision", "decisions", *TUNABLES))
    by_option = dict(map(_set_option, set_options))
    wanted = {**tunables, **by_option}
    # Check each with all others at their final values, since a range may depend on another tunable.
    effective = {name: wanted.get(name, one.default_for(mode, model_nodes is None)) for name, one in TUNABLES.items()}
    if wanted.get("target_nid") == NUMA_NO_NODE and wanted.get("target_policy") == 0:
        raise ConfigError(f"{file}: target_policy 0 contradicts target_nid -1: leave target_policy out")
    for name, value in tunables.items():
        if (wrong := _wrong(name, effective | {name: value}, mode, top)) is not None:
            raise pghot.error(name, wrong)
    for name in by_option:
        if (wrong := _wrong(name, effective, mode, top)) is not None:
            raise ConfigError(f"--set {name}: {wrong}")

    mountpoint = mount.take("mountpoint", _absolute, MOUNTPOINT)
    allow_other = mount.take("allow_other", boolean, None)
    mount.finish(("mountpoint", "allow_other"))
    save = state.take("save", boolean, False)
    state.finish(("save",))
    return Settings(
        mode,
        revision,
        decisions,
        wanted,
        machine,
        source_settings(sources, None if model_nodes is None else {node.nid for node in model_nodes}),
        mountpoint,
        allow_other,
        save,
        _metrics(metrics),
        frozenset(by_option),
        values,
    )


def _metrics(table: SettingsTable) -> MetricsSettings:
    default = MetricsSettings()
    settings = MetricsSettings(
        table.take("socket", _absolute, default.socket),
        table.take("port", integer(1, 65_535), default.port),
        table.take("textfile", _absolute, default.textfile),
        table.take("textfile_interval_s", integer(1, 3600), default.textfile_interval_s),
    )
    table.finish(("socket", "port", "textfile", "textfile_interval_s"))
    return settings


def _kinds(value: Any) -> int:
    return kind_bits(list_of(word)(value))


def _absolute(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path")
    return value


def _set_option(option: str) -> tuple[str, int]:
    name, equals, text = option.partition("=")
    if name not in TUNABLES or not equals:
        raise ConfigError(f"--set {option}: is not TUNABLE=VALUE; tunables are: {', '.join(TUNABLES)}")
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
        return f"{value} is not a top-tier node; there are: {', '.join(map(str, top))}"
    return wrong_value(name, values, mode)
