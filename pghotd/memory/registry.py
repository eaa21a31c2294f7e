"""Memory backends: a row for each, with what its [memory] table holds and how its machine is made.

To add one, write a package that implements the memory protocol (engine/memory.py), and a row here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pghotd.engine.counters import Counters
from pghotd.engine.memory import Clock, Memory
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.memory.linux.topology.tiers import LowerNodesError, NoLowerTierError
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.residency import SpecError
from pghotd.memory.model.settings import MachineTable, read_machine
from pghotd.memory.model.spec import MachineSpec, NodeSpec
from pghotd.settings.table import ConfigError, SettingsTable
from pghotd.settings.values import choice


class MemorySettings(Protocol):
    """Settings of any backend."""

    @property
    def nodes(self) -> Sequence[NodeSpec] | None:
        """Return the nodes, or None where they are known only once the machine has been examined."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend: the declaration of its table, how that is read, and how a machine is made of what was read.

    `make` raises ConfigError if the machine cannot be as described.
    """

    table: type[Any]
    read: Callable[[SettingsTable], MemorySettings]
    make: Callable[[Any, Counters, Clock], Memory]
    real_nodes: bool


def _make_model(spec: MachineSpec, counters: Counters, clock: Clock) -> Memory:
    try:
        return Machine(spec, counters, clock)
    except SpecError as wrong:
        raise ConfigError(f"memory.process: {wrong}") from None


def _make_linux(settings: LinuxSettings, counters: Counters, clock: Clock) -> Memory:
    try:
        return LinuxMachine(settings, counters, clock)
    except LowerNodesError as wrong:
        raise ConfigError(f"memory.{wrong}") from None
    except NoLowerTierError as wrong:
        raise ConfigError(str(wrong)) from None
    except OSError as wrong:
        raise ConfigError(f"memory.backend: {wrong.filename or 'the machine'}: {wrong.strerror}") from None


BACKENDS: dict[str, Backend] = {
    "model": Backend(MachineTable, read_machine, _make_model, real_nodes=False),
    "linux": Backend(LinuxSettings, lambda table: table.read(LinuxSettings), _make_linux, real_nodes=True),
}

DEFAULT_BACKEND = "model"


def memory_settings(memory: SettingsTable) -> tuple[str, MemorySettings]:
    """Return the name and the settings of the backend that the [memory] table names."""
    name: str = memory.take("backend", choice(tuple(BACKENDS)), DEFAULT_BACKEND)
    return name, BACKENDS[name].read(memory)
