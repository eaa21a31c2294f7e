"""The first process in a tree: mounts what it needs, changes root to it, and runs a command. Run by `tree.py`.

Mounts and processes are in namespaces that `unshare` has created, so they vanish with the command.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(root: Path, directory: str, command: Sequence[str]) -> int:
    """Run the command in `directory` of the tree, and return its exit code, or that of a shell for a signal."""
    # A mount point, so that the command may create namespaces and change root again.
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
        # Orphaned processes are reaped here.
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
