"""Report what this machine has for promotion on its real nodes, and what it lacks: `pghotd --check-host`.

One finding per line: what it is, what it means, what to do. Nothing is changed; a source is probed the way it would be
used.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict

from pghotd.host_check.finding import Finding
from pghotd.host_check.memory import memory
from pghotd.host_check.permissions import permissions
from pghotd.host_check.sources import sources
from pghotd.procfs.page_size import unsupported


def findings(proc: str = "/proc", sys: str = "/sys") -> list[Finding]:
    """Return the findings for the machine whose /proc and /sys are given."""
    found = [*memory(proc, sys), *permissions(proc)]
    if why := unsupported():
        # On such a kernel the results of source probes mean nothing.
        return [
            Finding("page size", False, why),
            *found,
            Finding("sources", None, "not probed, because of the page size"),
        ]
    return [*found, *sources(proc, sys)]


def can_promote(found: list[Finding]) -> bool:
    """Return whether promotion can work: nothing that it needs is missing."""
    return all(finding.ok is not False for finding in found)


def text(found: list[Finding]) -> str:
    """Return the findings as lines of text."""
    marks = {True: "ok ", False: "NO ", None: "-  "}
    return "".join(
        f"{marks[finding.ok]} {finding.name:<17} {finding.what}{'; ' if finding.todo else ''}{finding.todo}\n"
        for finding in found
    )


def as_json(found: list[Finding]) -> str:
    """Return the findings as JSON."""
    return json.dumps({"can_promote": can_promote(found), "findings": [asdict(one) for one in found]}, indent=1)


def main(json_wanted: bool) -> int:
    """Print the findings; return 0 if promotion can work here, else 1."""
    found = findings()
    with suppress(BrokenPipeError):  # the reader has seen enough
        os.write(1, (as_json(found) + "\n" if json_wanted else text(found)).encode())
    return os.EX_OK if can_promote(found) else 1
