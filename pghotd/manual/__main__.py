"""Print manual pages and completions: `python -m pghotd.manual PAGE [CONFIGURATION ...]`.

They are generated from the parsers and tables that the programs themselves use, and pghotd.toml(5) from the commented
configurations, which the tests check against what is read, so they cannot differ from the programs.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pghotd import __version__
from pghotd.cli import mount_helper, program
from pghotd.ctl import program as ctl
from pghotd.daemon.config import CONFIG_FILE
from pghotd.engine.counters import VMSTAT
from pghotd.engine.meanings import MEANINGS
from pghotd.manual.documented import documented, tunable_help
from pghotd.names import MOUNTPOINT

_SHELLS = ("bash", "zsh", "fish")


def _escaped(text: str) -> str:
    """Return text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))


def _section(title: str, *paragraphs: str) -> str:
    return f".SH {title}\n" + ".PP\n".join(f"{_escaped(one)}\n" for one in paragraphs)


def _list(title: str, entries: Iterable[tuple[str, str]]) -> str:
    body = "".join(f".TP\n\\fB{_escaped(name)}\\fR\n{_escaped(what)}\n" for name, what in entries)
    return f".SH {title}\n{body}"


def _from_parser(parser: argparse.ArgumentParser, section: str, short: str) -> str:
    from argparse_manpage.manpage import Manpage

    parser.man_short_description = short  # type: ignore[attr-defined]
    page = Manpage(parser)
    page.manual, page.source = "pghotd", f"pghotd {__version__}"
    # Its first line has a date, which would be that of the build.
    rest = str(page).partition("\n")[2]
    return f'.TH {parser.prog.upper()} "{section}" "" "pghotd {__version__}" "pghotd"\n{rest.rstrip()}\n'


def pghotd_8(configurations: list[str]) -> str:
    """Return the manual page of the daemon."""
    return (
        _from_parser(program.parser(), "8", "track hot pages and promote them to fast memory")
        + _list("TUNABLES", tunable_help())
        + _list("COUNTERS", ((name, f"{one.what}. {one.todo}".rstrip(". ") + ".") for name, one in MEANINGS.items()))
        + _list(
            "SIGNALS",
            [
                ("SIGHUP", "read the configuration again and apply changed tunables and [sources]"),
                ("SIGINT, SIGTERM", "finish the batches in flight, unmount, and exit"),
            ],
        )
        + _list(
            "EXIT STATUS",
            [
                ("0", "stopped as requested"),
                ("1", "failed while running, including an unmount from outside"),
                ("2", "wrong usage or configuration; one line names the error, and nothing was mounted"),
            ],
        )
        + _list(
            "FILES",
            [
                (str(CONFIG_FILE), "the configuration: pghotd.toml(5)"),
                (MOUNTPOINT, "the control tree"),
                ("/var/lib/pghotd/tunables-run-pghot.json", "tunables written at run time, where [state] save = true"),
            ],
        )
        + _section("SEE ALSO", "pghotctl(1), pghotd.toml(5), mount.pghotd(8)")
    )


def pghotctl_1(configurations: list[str]) -> str:
    """Return the manual page of the control program."""
    return (
        _from_parser(ctl.parser(), "1", "inspect and control a mounted pghotd")
        + _list("TUNABLES", tunable_help())
        + _list(
            "EXIT STATUS",
            [
                ("0", "done"),
                ("1", "failed; for doctor: promotion cannot work here"),
                ("2", "wrong usage, including a refused value"),
                ("3", "no daemon is mounted"),
            ],
        )
        + _section("SEE ALSO", "pghotd(8), pghotd.toml(5)")
    )


def mount_pghotd_8(configurations: list[str]) -> str:
    """Return the manual page of the mount helper."""
    return (
        _from_parser(mount_helper.parser(), "8", "mount pghotd's control tree by starting a daemon")
        + _list(
            "MOUNT OPTIONS",
            [
                ("mode=default|precise", "record of each page: 1 byte, or 4 with time and node"),
                ("config=FILE", f"the configuration (default: {CONFIG_FILE})"),
                *((f"{name}=VALUE", what) for name, what in tunable_help()),
            ],
        )
        + _section(
            "EXAMPLES",
            "mount -t pghotd none /mnt/pghot -o mode=precise,config=/etc/pghotd.toml",
            "A line of /etc/fstab: none /mnt/pghot pghotd mode=precise,nofail 0 0",
            "umount /mnt/pghot ends the daemon.",
        )
        + _list(
            "EXIT STATUS",
            [("0", "mounted"), ("1", "wrong options or configuration"), ("32", "the daemon could not mount")],
        )
        + _section("SEE ALSO", "pghotd(8), mount(8), fstab(5)")
    )


def pghotd_toml_5(configurations: list[str]) -> str:
    """Return the manual page of the configuration, with the text of commented configurations."""
    page = f'.TH PGHOTD.TOML "5" "" "pghotd {__version__}" "pghotd"\n'
    page += _section("NAME", f"pghotd.toml - the configuration of pghotd, {CONFIG_FILE}")
    page += _section(
        "DESCRIPTION",
        "TOML, read and checked as a whole before anything is started. A wrong key or value is one line that names the "
        "file, the key and what would be right; pghotd --check-config checks it without starting anything.",
        "Precedence, low to high: default, this file, saved state, --set, control file.",
        "systemctl reload pghotd (or SIGHUP) applies tunables and [sources] whose value here has changed. A change in "
        "[memory], [mount], [state], [metrics] or of mode, revision and decisions is refused: it needs a restart.",
    )
    page += _list("TUNABLES IN [pghot]", tunable_help())
    for name in configurations:
        page += (
            f".SH EVERY KEY, AS IN {_escaped(Path(name).name.upper())}\n.nf\n{_escaped(Path(name).read_text())}.fi\n"
        )
    return page + _section("SEE ALSO", "pghotd(8), pghotctl(1)")


PAGES: dict[str, Callable[[list[str]], str]] = {
    "pghotd.8": pghotd_8,
    "pghotctl.1": pghotctl_1,
    "mount.pghotd.8": mount_pghotd_8,
    "pghotd.toml.5": pghotd_toml_5,
}


def counters_md() -> str:
    """Return docs/counters.md."""
    lines = [
        "# What every counter means",
        "",
        "Generated by `python -m pghotd.manual counters.md` from the table that metrics and manual pages also use.",
        "All start from zero and count pages, except `pghot_recorded_*`, which count accesses and reports. The books",
        "balance in every single reading of `vmstat`:",
        "",
        "    pghotd_taken = pgpromote_success + every pghotd_refused_* + every pghotd_failed_* + pghotd_in_flight",
        "",
        "| counter | what it counts | what to do if it grows |",
        "|---|---|---|",
        *(f"| `{name}` | {MEANINGS[name].what} | {MEANINGS[name].todo or '-'} |" for name in VMSTAT),
    ]
    return "\n".join(lines) + "\n"


def completion(shell: str) -> str:
    """Return pghotctl's completion for a shell."""
    import shtab

    text: str = shtab.complete(ctl.parser(), shell)
    return text


def main() -> int:
    """Print the requested page and return the exit code."""
    options = argparse.ArgumentParser(prog="python -m pghotd.manual", description="Print a manual page.")
    options.add_argument(
        "page", choices=[*PAGES, *(f"completion.{shell}" for shell in _SHELLS), "counters.md", "documented"]
    )
    options.add_argument("configurations", nargs="*", metavar="CONFIGURATION")
    arguments = options.parse_args()
    if arguments.page in PAGES:
        sys.stdout.write(PAGES[arguments.page](arguments.configurations))
    elif arguments.page == "counters.md":
        sys.stdout.write(counters_md())
    elif arguments.page == "documented":
        sys.stdout.write("".join(documented(Path(name).read_text()) for name in arguments.configurations))
    else:
        print(completion(arguments.page.partition(".")[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
