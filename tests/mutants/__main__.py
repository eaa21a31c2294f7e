"""`make mutants SEED=N`: change the program a little, again and again, and see whether a test fails.

It works in a copy of the tree, and as root with mounts of its own. The sample depends on the seed and on the text of
functions, not on the files that they are in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from tests.mutants.lines import Lines, read_lines
from tests.mutants.mutations import Mutant, mutants_below
from tests.mutants.run import ChosenTests, import_slow_modules, run_forked

FOLDERS = ("pghotd/engine", "pghotd/memory", "pghotd/fs", "pghotd/sources")
_COPY = "PGHOTD_MUTANTS_COPY_OF"
#: Limit for all tests of one mutant, as timed with tracing.
_MOST_SECONDS = 60
_LEAST_CAUGHT = 0.85
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 2


def main() -> int:
    """Run the command, in a copy of the tree."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Try small changes of meaning.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=200, help="how many mutants (200)")
    parser.add_argument(
        "--again", action="store_true", help="leave out mutants that were caught in the last run with this seed"
    )
    parser.add_argument("--only", metavar="PATH[:LINE]", action="append", help="all mutants of a file or line instead")
    given = parser.parse_args()
    if _COPY not in os.environ:
        return _in_a_copy(Path.cwd())
    original, root = Path(os.environ[_COPY]), Path.cwd()
    cache = original / ".cache/mutants"
    import_slow_modules()
    lines = read_lines(root, cache / "lines")
    every = mutants_below(root, FOLDERS)
    chosen = _only(every, given.only) if given.only else _sample(every, given.seed, given.number)
    return _report(root, chosen, _equivalents(every), lines, cache / f"seed-{given.seed}.json", given.again)


def _report(
    root: Path, chosen: list[Mutant], equivalents: dict[tuple[str, ...], str], lines: Lines, last: Path, again: bool
) -> int:
    """Run the mutants, print the verdict on each, and return the exit status."""
    began = time.monotonic()
    before = json.loads(last.read_text()) if again and last.exists() else {}
    verdicts: dict[str, str] = {}
    for mutant in chosen:
        known = before.get(str(mutant), "")
        if _entry(mutant) in equivalents:
            verdict = f"equivalent: {equivalents[_entry(mutant)]}"
        else:
            verdict = known if known.startswith("caught") else _verdict(root, mutant, lines)
        verdicts[str(mutant)] = verdict
        last.write_text(json.dumps(before | verdicts, indent=1))
        print(f"{len(verdicts)}/{len(chosen)} {mutant}\n    {verdict}", flush=True)
    survivors = [name for name, verdict in verdicts.items() if verdict.startswith("survived")]
    caught = sum(verdict.startswith("caught") for verdict in verdicts.values())
    print("", *survivors, sep="\n")
    share = 100 * caught / max(len(verdicts), 1)
    print(
        f"{caught} of {len(verdicts)} caught ({share:.1f} %), {len(survivors)} survived, "
        f"{len(verdicts) - caught - len(survivors)} equivalent, in {(time.monotonic() - began) / 60:.0f} min"
    )
    return int(caught < _LEAST_CAUGHT * len(verdicts))


def _verdict(root: Path, mutant: Mutant, lines: Lines) -> str:
    """Return the verdict of the tests on a mutant."""
    seconds: dict[str, float] = {}
    for test in lines.tests(mutant.path, mutant.line, mutant.statement):
        if sum(seconds.values()) + lines.seconds[test] <= _MOST_SECONDS or not seconds:
            seconds[test] = lines.seconds[test]
    if not seconds:
        return "survived: no test runs it"
    file, failed = root / mutant.path, root.parent / "failed"
    text = file.read_text()
    failed.write_text("the import")
    try:
        file.write_text(mutant.source())
        # Compiled files are distinguished by seconds.
        os.utime(file, (0, time.time_ns() // 1_000_000 % (1 << 31)))
        files = sorted({test.partition("::")[0] for test in seconds})
        status = run_forked(["-x", *files], ChosenTests(seconds, failed))
    finally:
        file.write_text(text)
    if status == _PASSED:
        return f"survived {len(seconds)} tests"
    if status < 0 or status in (_FAILED, _INTERRUPTED):
        return f"caught by {failed.read_text()}"
    raise RuntimeError(f"{mutant}: pytest ended with {status}: {(root.parent / 'output').read_text()[-2000:]}")


def _sample(every: list[Mutant], seed: int, number: int) -> list[Mutant]:
    """Return `number` mutants, chosen by the seed and not by where functions are."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(repr((seed, *mutant.name)).encode()).digest()

    return sorted(every, key=rank)[:number]


def _only(every: list[Mutant], wanted: list[str]) -> list[Mutant]:
    return [one for one in every if {one.path, f"{one.path}:{one.line}", f"{one.path}:{one.statement}"} & set(wanted)]


def _entry(mutant: Mutant) -> tuple[str, ...]:
    """Return the fields by which the list of equivalents names a mutant; a file may move to another folder."""
    function, text, operator, occurrence = mutant.name
    return Path(mutant.path).name, function, text, operator, str(occurrence)


def _equivalents(every: list[Mutant]) -> dict[tuple[str, ...], str]:
    """Return the reasons of the list of equivalents; an entry that no longer matches a mutant is an error."""
    listed = tomllib.loads(Path(__file__).with_name("equivalents.toml").read_text()).get("mutant", [])
    reasons: dict[tuple[str, ...], str] = {
        (one["file"], one["function"], one["text"], one["operator"], str(one.get("occurrence", 0))): one["reason"]
        for one in listed
    }
    gone = set(reasons) - {_entry(mutant) for mutant in every}
    if gone:
        raise SystemExit(f"equivalents.toml: no such mutant: {sorted(gone)}")
    return reasons


def _in_a_copy(checkout: Path) -> int:
    """Run this command in a copy of the tree that all users may enter, and remove the copy afterwards."""
    place = Path(tempfile.mkdtemp(prefix="pghotd-m-"))
    place.chmod(0o755)
    copy = place / "copy"
    try:
        copy.mkdir()
        listed = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
        for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
            if name and (checkout / name).is_symlink():
                _below(copy, name).symlink_to(os.readlink(checkout / name))
            elif name and (checkout / name).is_file():
                shutil.copyfile(checkout / name, _below(copy, name))
        own_mounts = ["unshare", "--mount"] if os.geteuid() == 0 else []
        command = [*own_mounts, sys.executable, "-m", "tests.mutants", *sys.argv[1:]]
        return subprocess.run(command, cwd=copy, env={**os.environ, _COPY: str(checkout)}, check=False).returncode
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
