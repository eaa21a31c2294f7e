"""First process of a tree: mount what it needs, change root to it, and run a command in it. Run by `tree.py`.

Mounts and processes are in namespaces of their own, which `unshare` has made: with the command they go.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(root: Path, directory: str, command: Sequence[str]) -> int:
    """Run the command in `directory` of the tree, and return its exit code, or that of a shell for a signal."""
    # A mount point itself, so that what is run in it may make namespaces and change root once more.
    mount("--bind", str(root), str(root))
    mount("-t", "proc", "proc", str(root / "proc"))
    for name in ("dev", "sys"):
        mount("--rbind", f"/{name}", str(root / name))
    os.chroot(root)
    os.chdir(directory)
    child = os.fork()
    if child == 0:
        os.execvpe(command[0], command, os.environ)
    while True:
        # Processes that have lost their parent are this one's to wait for.
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
