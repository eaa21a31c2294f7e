"""Test the project in bare trees of Debian, and build its package in one: `python -m tests.bare COMMAND`.

Exit code 0: passed. 1: failed. 2: it cannot run here; one line gives the reason.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.bare import package, tree, wheels
from tests.bare.tree import FailedError
from tests.vm.errors import CannotRunError

#: What a bare tree lacks; tests of it are skipped there, even where skips are failures.
LACKING = "systemd man"


def test(release: str, variant: str) -> None:
    """Run the README's test command."""
    strict = {name: os.environ[name] for name in ("PGHOTD_REQUIRE_ALL", "CI") if name in os.environ}
    with tree.unpacked(release, variant) as bare:
        environment = strict | {"PGHOTD_WITHOUT": LACKING}
        bare.must("make", "test", directory=tree.SOURCE, environment=environment)


def main(arguments: Sequence[str]) -> int:
    """Run the command, print how long it took, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bare", description="Test the project in a bare Debian.")
    commands = parser.add_subparsers(dest="command", required=True)
    in_a_release = argparse.ArgumentParser(add_help=False)
    in_a_release.add_argument("--release", choices=tree.RELEASES, default="trixie")
    one = commands.add_parser("test", parents=[in_a_release], help="run the README's test command")
    one.add_argument("--variant", default="minbase", help="debootstrap's; empty for its default (default: minbase)")
    commands.add_parser("pip", parents=[in_a_release], help="pip install of the wheel and of the sdist")
    commands.add_parser("deb", help="build the Debian package")
    commands.add_parser("deb-test", help="install, start, upgrade, remove and purge it")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        if options.command == "test":
            test(options.release, options.variant)
        elif options.command == "pip":
            wheels.test(options.release)
        elif options.command == "deb":
            package.build()
        else:
            package.test()
    except FailedError as error:
        print(f"bare tree: {error}", file=sys.stderr)
        return 1
    except CannotRunError as error:
        print(f"bare tree: {error}", file=sys.stderr)
        return 2
    print(f"bare tree: {' '.join(arguments)}: passed after {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
