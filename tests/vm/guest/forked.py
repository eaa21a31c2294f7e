"""Start programs of this checkout by fork, with their imports already in memory.

An emulated CPU takes 3 s to import what the daemon needs, and 1 s for a target, in each of a hundred processes. The
runner imports it once, and each process begins at the program's `main()`. A test of a start from scratch uses
subprocess.Popen.
"""

import gc
import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

#: What `python -m NAME` runs, by the module that holds its `main`.
_PROGRAMS = {
    "pghotd": "pghotd.cli.program",
    "tests.vm.guest.ballast": "tests.vm.guest.ballast",
    "tests.vm.guest.bystander": "tests.vm.guest.bystander",
    "tests.vm.guest.target": "tests.vm.guest.target",
}
_MOST_FILES = 1024


class Forked(subprocess.Popen[str]):
    """Replacement of subprocess.Popen for `[sys.executable, "-m", NAME, ...]` that forks instead of executing it."""

    def _execute_child(  # type: ignore[override]
        self,
        args: Sequence[str],
        executable: object,
        preexec_fn: object,
        close_fds: object,
        pass_fds: object,
        cwd: object,
        env: object,
        startupinfo: object,
        creationflags: object,
        shell: object,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *rest: object,
    ) -> None:
        interpreter, option, name, *arguments = args
        assert (interpreter, option) == (sys.executable, "-m"), args
        module = importlib.import_module(_PROGRAMS[name])
        # numpy imports it at the first call of unique(). After the freeze no child's collector visits what exists at
        # the fork.
        importlib.import_module("numpy.ma")
        gc.freeze()
        self.pid = os.fork()
        if not self.pid:
            _run_and_exit(module.main, [name, *arguments], (p2cread, c2pwrite, errwrite))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def _run_and_exit(main: Any, argv: list[str], files: tuple[int, ...]) -> NoReturn:
    """Run a program in this freshly forked process and exit with its code, whatever happens."""
    code = 1
    try:
        # The child inherits neither the runner's time limit nor its files.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, file in enumerate(files):
            if file >= 0:
                os.dup2(file, number)
        os.closerange(3, _MOST_FILES)
        sys.argv = argv
        code = main() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
