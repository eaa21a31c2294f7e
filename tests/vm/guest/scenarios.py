"""The scenarios for evaluating movers, in the guest and on the memory model, by name.

Targets use their hot set every 5 ms, since NUMA balancing scans a process by the CPU time that it uses. Noise is read
at random, each page every four seconds: by the rule some of it is hot at any time, but not as hot.
"""

from tests.vm.guest.scenario import Part, Scenario

SIZE_MB, HOT_MB = 128, 16
#: How often a second each page is read where cold pages are read at random.
RANDOM_RATE = 0.1
MOVE_EVERY_S, MOVES = 15, 10
UNIFORM_S, THEN_HOT_IN_S = 120, 30
_HOT = ("--size-mb", str(SIZE_MB), "--hot-mb", str(HOT_MB), "--round-ms", "5")
_SWEEP = (*_HOT, "--sweep-s", "10")
_RANDOM = (*_HOT, "--cold-rate", str(RANDOM_RATE))
_MOVING = (*_SWEEP, "--move-every-s", str(MOVE_EVERY_S), "--moves", str(MOVES))
_ALL_HOT = ("--size-mb", str(HOT_MB), "--hot-mb", str(HOT_MB), "--round-ms", "5")
_NOISE = ("--size-mb", "512", "--hot-mb", "0", "--cold-rate", "0.25", "--round-ms", "50", "--seed", "2")
#: The fast node is filled first, by the default policy, as on a machine that is in use.
_UNIFORM = ("--size-mb", "1280", "--node", "-1", "--cold-rate", "0.3", "--round-ms", "50")
_THEN_HOT = ("--hot-mb", str(HOT_MB), "--hot-after-s", str(UNIFORM_S + 4))


def _full(name: str, kind: str, layout: str) -> Scenario:
    return Scenario(name, (Part(layout, _SWEEP),), demotion=True, ballast=kind, bystander=True, at=(10, 20, 30, 60))


SCENARIOS = {
    one.name: one
    for one in (
        *(Scenario(f"{layout} sweep", (Part(layout, _SWEEP),)) for layout in ("scattered", "contiguous", "huge")),
        *(Scenario(f"{layout} random", (Part(layout, _RANDOM),)) for layout in ("scattered", "contiguous", "huge")),
        # The last time is the end of the last hot set, less the start of the mover and a look.
        Scenario("moving", (Part("scattered", _MOVING),), at=(15, 60, (MOVES + 1) * MOVE_EVERY_S - 2)),
        _full("full, 4 KiB", "anonymous", "scattered"),
        _full("full, huge", "huge", "huge"),
        Scenario(
            "two cgroups",
            (Part("scattered", _ALL_HOT, cgroup="hot"), Part("scattered", _NOISE, cgroup="noise")),
            demotion=True,
            ballast="anonymous",
        ),
        Scenario("no room", (Part("scattered", _SWEEP),), ballast="anonymous"),
        Scenario(
            "both full",
            (Part("scattered", _SWEEP),),
            demotion=True,
            ballast="anonymous",
            slow_is_full=True,
            at=(10, 20, 30, 40),
        ),
        Scenario(
            "uniform, then hot",
            (Part("scattered", (*_UNIFORM, *_THEN_HOT)),),
            demotion=True,
            at=(10, 60, UNIFORM_S, UNIFORM_S + THEN_HOT_IN_S + 8),
        ),
        Scenario("roomy", (Part("scattered", _SWEEP),), at=(10, 20), balancing={"promote_rate_limit": 1}),
    )
}
