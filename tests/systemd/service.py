"""pghotd's service in a booted system, and queries of systemd about it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.systemd.boot import CHECKOUT, System, until

NAME = "pghotd.service"
TREE = "/run/pghot"
LOCK = "/run/pghotd-run-pghot.lock"
CONFIG = "/etc/pghotd.toml"
UNITS = "/etc/systemd/system"
DROP_INS = f"{UNITS}/{NAME}.d"
PREFIX = "/usr/local"
SHIPPED = CHECKOUT / "systemd"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A line of the journal: its level as in syslog(3), its text, and its program."""

    priority: int
    message: str
    identifier: str


def install(system: System, programs: Path) -> None:
    """Install what `make install` does, with links to the programs of the checkout's environment."""
    for name, link in (
        ("pghotd", f"{PREFIX}/bin/pghotd"),
        ("pghotctl", f"{PREFIX}/bin/pghotctl"),
        ("mount.pghotd", "/usr/sbin/mount.pghotd"),
    ):
        system.run("ln", "-sf", str(programs / name), link)
    unit = (SHIPPED / NAME).read_text().replace("@PREFIX@", PREFIX)
    system.path(f"{UNITS}/{NAME}").write_text(unit)


class Service:
    """pghotd's service, as shipped unless a test changes it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._cursor = self._last_cursor()

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl on the service."""
        done = self.system.run("systemctl", arguments[0], NAME, *arguments[1:], check=check)
        return done.stdout + done.stderr

    def start(self) -> None:
        """Start it and check that it is up."""
        self.systemctl("start")
        assert self.read("version").startswith("pghotd ")

    def properties(self, *names: str) -> list[str]:
        """Return its properties in systemd, by name."""
        output = self.system.run("systemctl", "show", NAME, *(f"-p{name}" for name in names)).stdout
        values = dict(line.split("=", 1) for line in output.splitlines())
        return [values[name] for name in names]

    def property(self, name: str) -> str:
        """Return one of its properties in systemd."""
        return self.properties(name)[0]

    def pid(self) -> str:
        """Return the daemon's pid inside, according to systemd; 0 for none."""
        return self.property("MainPID")

    def signal(self, name: str) -> None:
        """Send the daemon a signal with kill(1), behind systemd's back."""
        self.system.run("kill", f"-{name}", self.pid())

    def read(self, file: str) -> str:
        """Read a file of the tree as a client inside does, which is killed if there is no answer."""
        return self.system.run("cat", f"{TREE}/{file}").stdout

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.system.path(CONFIG).write_text(text)

    def drop_in(self, name: str, text: str) -> None:
        """Add a drop-in."""
        directory = self.system.path(DROP_INS)
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(text)
        self.system.run("systemctl", "daemon-reload")

    def shipped_drop_in(self, name: str) -> None:
        """Add a drop-in that is shipped."""
        self.drop_in(name, (SHIPPED / f"{NAME}.d" / name).read_text())

    def mounts(self) -> list[str]:
        """Return pghotd's mount points that systemd sees, dead ones included."""
        text = Path(f"/proc/{self.system.pid}/mountinfo").read_text()
        return [line.split()[4] for line in text.splitlines() if " - fuse.pghotd " in line]

    def journal(self, unit: str = NAME) -> list[JournalLine]:
        """Return the journal's lines since this object was made, of a unit's processes or of systemd about it."""
        self.system.run("journalctl", "--sync")
        # For only the service's lines, journalctl --after-cursor would leave out the first one (systemd 252).
        output = self.system.run("journalctl", "-q", "-o", "json", f"--after-cursor={self._cursor}").stdout
        return [
            JournalLine(int(one["PRIORITY"]), one["MESSAGE"], one.get("SYSLOG_IDENTIFIER", ""))
            for one in map(json.loads, output.splitlines())
            if unit in (one.get("_SYSTEMD_UNIT"), one.get("UNIT"))
        ]

    def wait_for_line(self, part: str, unit: str = NAME) -> JournalLine:
        """Wait for a line of the journal that contains `part`, and return it."""
        return until(
            lambda: [line for line in self.journal(unit) if part in line.message], f"{part!r} in the journal of {unit}"
        )[0]

    def _last_cursor(self) -> str:
        cursor: str = json.loads(self.system.run("journalctl", "-q", "-n1", "-o", "json").stdout)["__CURSOR"]
        return cursor


@contextmanager
def fresh(system: System) -> Iterator[Service]:
    """Yield the service as it is after the installation, stopped; afterwards remove what a test added."""
    service = Service(system)
    service.configure((SHIPPED / "pghotd.toml").read_text())
    system.run("systemctl", "daemon-reload")
    try:
        yield service
    finally:
        system.run("systemctl", "stop", NAME, check=False)
        system.run("umount", "-lq", TREE, check=False)
        system.run("rm", "-rf", DROP_INS, LOCK)
        system.run("systemctl", "daemon-reload")
        system.run("systemctl", "reset-failed", NAME, check=False)
