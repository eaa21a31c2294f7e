"""Read the configuration: every table and key there is, checked as a whole before anything is started.

Precedence, low to high: default, file, --set, control file. A wrong key or value is one line that names the file, the
key and what would be right. `docs/pghotd.toml` comments each key; a test holds it against what is read here.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pghotd.engine.kinds import kind_bits
from pghotd.engine.kstrtox import kstrtouint
from pghotd.engine.records import Revision
from pghotd.engine.tunables import TUNABLES, Mode
from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES, PAGES_PER_GB, PAGES_PER_SECTION
from pghotd.memory.model.spec import MachineSpec, NodeSpec, ProcessSpec
from pghotd.memory.protocol import Tier
from pghotd.settings_table import (
    ConfigError,
    SettingsTable,
    boolean,
    choice,
    integer,
    list_of,
    pages,
    share,
    word,
)
from pghotd.sources.settings import SourceSettings, source_settings

CONFIG_FILE = Path("/etc/pghotd.toml")
MOUNTPOINT = "/run/pghot"

Backend = Literal["model"]

#: Without a configuration: 1G of fast memory and 4G of slow memory, as DDR5 and CXL are to each other.
BUILT_IN_MACHINE = MachineSpec(
    (
        NodeSpec(0, PAGES_PER_GB, "top", {0: 10, 1: 20}, 100, 38_000),
        NodeSpec(1, 4 * PAGES_PER_GB, "lower", {0: 20, 1: 10}, 250, 20_000),
    )
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold what was configured; `tunables` only those that differ from their defaults for the mode."""

    mode: Mode = "default"
    revision: Revision = "v6"
    tunables: Mapping[str, int] = field(default_factory=dict)
    machine: MachineSpec = BUILT_IN_MACHINE
    sources: SourceSettings = field(default_factory=SourceSettings)
    mountpoint: str = MOUNTPOINT
    #: None: on when root runs the daemon, else off.
    allow_other: bool | None = None


def load(file: Path | None, mode: Mode | None, set_options: list[str]) -> Settings:
    """Return the settings of a file (None: the default one if it is there), with `mode` and --set over it.

    ConfigError says what is wrong; nothing has been started.
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
    sources = root.table("sources")
    root.finish(("pghot", "memory", "sources", "mount"))

    configured: Mode = pghot.take("mode", choice(Mode), "default")
    mode = configured if mode is None else mode
    revision: Revision = pghot.take("revision", choice(Revision), "v6")
    machine = _machine(memory)
    top = [node.nid for node in machine.nodes if node.tier == "top"]
    tunables = {
        name: pghot.take(name, _kinds if name == "enabled_sources" else integer(0, 2**32))
        for name in TUNABLES
        if pghot.has(name)
    }
    for name, value in tunables.items():
        if (wrong := _out_of_range(name, value, mode, top)) is not None:
            raise pghot.error(name, wrong)
    pghot.finish(("mode", "revision", *TUNABLES))
    for option in set_options:
        name, value = _set_option(option)
        if (wrong := _out_of_range(name, value, mode, top)) is not None:
            raise ConfigError(f"--set {name}: {wrong}")
        tunables[name] = value

    mountpoint = mount.take("mountpoint", _absolute, MOUNTPOINT)
    allow_other = mount.take("allow_other", boolean, None)
    mount.finish(("mountpoint", "allow_other"))
    return Settings(
        mode,
        revision,
        tunables,
        machine,
        source_settings(sources, {node.nid for node in machine.nodes}),
        mountpoint,
        allow_other,
    )


def _machine(memory: SettingsTable) -> MachineSpec:
    memory.take("backend", choice(Backend), "model")
    move_ns = memory.take("move_ns", integer(0, 10**9), 3000)
    node_tables, process_tables = memory.tables("node"), memory.tables("process")
    memory.finish(("backend", "move_ns", "node", "process"))
    nodes = _nodes(memory, node_tables) if node_tables else BUILT_IN_MACHINE.nodes
    return MachineSpec(nodes, tuple(_process(table, nodes) for table in process_tables), move_ns)


def _nodes(memory: SettingsTable, tables: list[SettingsTable]) -> tuple[NodeSpec, ...]:
    nids = [table.take("nid", integer(0, MAX_NUMNODES - 1)) for table in tables]
    if nids != sorted(set(nids)):
        raise memory.error("node", "nids do not rise from one node to the next")
    nodes = []
    for nid, table in zip(nids, tables, strict=True):
        tier: Tier = table.take("tier", choice(Tier))
        distances = table.take("distance", list_of(integer(10, 255)))
        if len(distances) != len(nids) or distances[nids.index(nid)] != 10:
            raise table.error("distance", f"is not one number for each of {len(nids)} nodes, 10 to itself")
        nodes.append(
            NodeSpec(
                nid,
                table.take("size", pages(PAGES_PER_SECTION)),
                tier,
                dict(zip(nids, distances, strict=True)),
                table.take("latency_ns", integer(1, 10**9), 100 if tier == "top" else 250),
                table.take("bandwidth_MBps", integer(1, 2**31 - 1), 38_000 if tier == "top" else 20_000),
            )
        )
        table.finish(("nid", "size", "tier", "distance", "latency_ns", "bandwidth_MBps"))
    if all(node.tier != "top" for node in nodes):
        raise memory.error("node", 'no node has tier = "top"')
    return tuple(nodes)


def _process(table: SettingsTable, nodes: tuple[NodeSpec, ...]) -> ProcessSpec:
    folio_pages = table.take("folio_pages", _folio_pages, 1)
    nid = table.take("node", integer(0, MAX_NUMNODES - 1))
    if nid not in {node.nid for node in nodes}:
        raise table.error("node", f"there is no node {nid}")
    spec = ProcessSpec(
        table.take("name", word),
        table.take("size", pages(folio_pages)),
        nid,
        folio_pages.bit_length() - 1,
        table.take("pinned", boolean, False),
        table.take("lru", boolean, True),
        table.take("file", boolean, False),
        table.take("dirty", boolean, False),
        table.take("owner", word, ""),
        table.take("busy", share, 0.0),
    )
    table.finish(("name", "size", "node", "folio_pages", "pinned", "lru", "file", "dirty", "owner", "busy"))
    if spec.dirty and not spec.file:
        raise table.error("dirty", "only a page-cache folio is written back: it needs file = true")
    return spec


def _folio_pages(value: Any) -> int:
    if value not in [1 << order for order in range(MAX_FOLIO_PAGES.bit_length())]:
        raise ValueError(f"{value!r} is not a power of two in 1..{MAX_FOLIO_PAGES}")
    return int(value)


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
        return name, kstrtouint(text.encode(errors="replace"))
    except OSError as wrong:
        raise ConfigError(f"--set {name}: {text!r} is {wrong.strerror}") from None


def _out_of_range(name: str, value: int, mode: Mode, top: list[int]) -> str | None:
    """Return what is wrong with a tunable's value, None when nothing is."""
    tunable = TUNABLES[name]
    if name == "target_nid":
        return None if value in top else f"{value} is not a top-tier node; there are: {', '.join(map(str, top))}"
    low, high = tunable.low, tunable.high.of(mode)
    return None if low <= value <= high else f"{value} is not in {low}..{high}"
