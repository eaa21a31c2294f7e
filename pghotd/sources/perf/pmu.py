"""Find the events that sample memory accesses, with the encodings that the kernel gives for this processor.

/sys/bus/event_source/devices/NAME has `type`, `format/TERM` (the bits and the word of a term), `events/EVENT` (terms
and their values) and `caps/`. AMD's IBS op is a device of its own; Intel's loads with latency are an event of the core
PMU, or of each kind of core's PMU on a hybrid processor.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pghotd.procfs.attribute import read_attribute, read_number
from pghotd.procfs.cpus import online_cpus
from pghotd.procfs.nodelist import parse_cpulist
from pghotd.sources.perf.event import Event

Words = tuple[int, int, int]
_WORDS = ("config", "config1", "config2")
_FORMAT = re.compile(r"(config[12]?):([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\Z", re.ASCII)
_CORES = ("cpu", "cpu_core", "cpu_atom")
_MAX_PRECISE = 3


@dataclass(frozen=True, slots=True)
class Sampled:
    """An event that samples memory accesses, the CPUs on which it is sampled, and its name."""

    event: Event
    cpus: tuple[int, ...]
    name: str


def memory_events(ldlat: int, sys: str = "/sys") -> list[Sampled]:
    """Return the events of this machine, none if it cannot sample memory; `ldlat` in cycles for loads with latency."""
    cpus = online_cpus(sys)
    base = f"{sys}/bus/event_source/devices"
    ibs = _ibs_op(f"{base}/ibs_op")
    if ibs is not None:
        return [replace(ibs, cpus=cpus)]
    found = [_mem_loads(f"{base}/{core}", core, ldlat) for core in _CORES]
    return [one if one.cpus else replace(one, cpus=cpus) for one in found if one is not None and one.event.precise]


def encode(folder: str, terms: Mapping[str, int]) -> Words:
    """Return config, config1 and config2 for these term values of the PMU at `folder`; OSError if one does not fit."""
    words = dict.fromkeys(_WORDS, 0)
    for term, value in terms.items():
        match = _FORMAT.match(read_attribute(f"{folder}/format/{term}"))
        if match is None:
            continue
        for bits in match[2].split(","):
            first, _, last = bits.partition("-")
            low, width = int(first), int(last or first) - int(first) + 1
            if not 0 < width <= 64 - low:
                continue
            words[match[1]] |= (value & ((1 << width) - 1)) << low
            value >>= width
    return words["config"], words["config1"], words["config2"]


def _ibs_op(folder: str) -> Sampled | None:
    """Return IBS op, counting micro-ops rather than cycles, and only those that missed the L3, where supported."""
    try:
        number = read_number(f"{folder}/type")
    except OSError:
        return None
    words: Words = (0, 0, 0)
    name = "ibs_op"
    for term in ("cnt_ctl", "l3missonly"):
        try:
            more = encode(folder, {term: 1})
        except OSError:
            continue
        words = (words[0] | more[0], words[1] | more[1], words[2] | more[2])
        name += f" {term}"
    return Sampled(Event(number, *words), (), name)


def _mem_loads(folder: str, core: str, ldlat: int) -> Sampled | None:
    """Return the loads of at least `ldlat` cycles, if the PMU at `folder` samples them."""
    try:
        number = read_number(f"{folder}/type")
        terms = _terms(read_attribute(f"{folder}/events/mem-loads"))
        if "ldlat" in terms:
            terms["ldlat"] = ldlat
        words = encode(folder, terms)
    except OSError:
        return None
    try:
        precise = min(read_number(f"{folder}/caps/max_precise"), _MAX_PRECISE)
    except OSError:
        precise = 2
    try:
        aux = encode(folder, _terms(read_attribute(f"{folder}/events/mem-loads-aux")))
        leader = Event(number, *aux)
    except OSError:
        leader = None
    try:
        cpus = parse_cpulist(read_attribute(f"{folder}/cpus"))
    except OSError:
        cpus = ()
    event = Event(number, *words, precise=precise, exclude_kernel=True, leader=leader)
    return Sampled(event, cpus, f"{core} mem-loads of {ldlat} cycles")


def _terms(text: str) -> dict[str, int]:
    """Return the terms of an event; a term without a value is 1."""
    found = {}
    for part in text.split(","):
        term, _, value = part.partition("=")
        try:
            found[term.strip()] = int(value or "1", 0)
        except ValueError:
            continue
    return found
