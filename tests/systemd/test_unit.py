"""The unit by systemd's own analysis: no complaint, little exposure; and that it runs with each drop-in."""

import json
import re
import socket

import pytest

from tests.systemd.boot import until
from tests.systemd.service import CONFIG, NAME, PREFIX, SHIPPED, TREE, UNITS

DROP_INS = sorted(path.name for path in (SHIPPED / f"{NAME}.d").iterdir())


def exposure(service):
    """Return the figure of systemd-analyze, from 0 (least exposed) to 10."""
    output = service.system.run("systemd-analyze", "security", "--offline=true", "--no-pager", NAME).stdout
    return float(re.search(rf"Overall exposure level for {NAME}: ([0-9.]+)", output)[1])


@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
def test_verify_reports_nothing(service, drop_in):
    if drop_in:
        service.shipped_drop_in(drop_in)
    done = service.system.run("systemd-analyze", "verify", "--man=no", f"{UNITS}/{NAME}")
    assert (done.stdout, done.stderr) == ("", "")


def test_verify_would_report_a_mistake(service):
    service.drop_in("wrong.conf", "[Service]\nProtectClok=yes\n")
    assert "ProtectClok" in service.system.run("systemd-analyze", "verify", "--man=no", f"{UNITS}/{NAME}").stderr


@pytest.mark.parametrize(("drop_in", "limit"), [(None, 3.5), ("linux.conf", 4.0)])
def test_exposure_is_limited(service, capsys, drop_in, limit):
    if drop_in:
        service.shipped_drop_in(drop_in)
    figure = exposure(service)
    with capsys.disabled():
        print(f" exposure {figure} of {limit}", end="")
    assert figure <= limit


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_the_service_starts_with_each_drop_in(service, drop_in):
    service.shipped_drop_in(drop_in)
    service.start()
    assert service.mounts() == [TREE]
    service.systemctl("stop")
    assert service.property("Result") == "success"


def test_the_running_daemon_is_confined(service):
    """The settings apply to the running daemon; they are not only in the file."""
    service.start()
    status = dict(
        line.split(":\t", 1)
        for line in service.system.path(f"/proc/{service.pid()}/status").read_text().splitlines()
        if ":\t" in line
    )
    cap_sys_admin = 1 << 21
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == cap_sys_admin
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    inside = service.system.path(f"/proc/{service.pid()}/ns/net").readlink()
    assert inside != service.system.path("/proc/1/ns/net").readlink()
    # The host sees the mount only if it has the same mount namespace.
    assert service.system.path(f"/proc/{service.pid()}/ns/mnt").readlink() == (
        service.system.path("/proc/1/ns/mnt").readlink()
    )


def test_procscan_follows_a_process_of_another_user_only_with_its_drop_in(service):
    service.configure('[sources.procscan]\ninterval_ms = 100\n[[sources.procscan.target]]\nname = "sleep"\n')

    def stat():
        return dict(line.split(" ", 1) for line in service.read("sources/procscan/stat").splitlines())

    sleeper = service.system.start("setpriv", "--reuid=65534", "--clear-groups", "sleep", "3600")
    try:
        service.start()
        until(lambda: int(stat()["scans"]) and int(stat()["denied"]), "denied without the drop-in")
        assert stat()["pages"] == "0"
        service.systemctl("stop")
        service.shipped_drop_in("procscan.conf")
        service.start()
        until(lambda: int(stat()["pages"]), "pages of another user's process")
        assert stat()["denied"] == "0"
    finally:
        service.system.run("pkill", "-x", "sleep", "-u", "65534")
        sleeper.communicate()


def test_without_slow_memory_the_linux_backend_stays_down_with_the_reason(service):
    service.shipped_drop_in("linux.conf")
    service.configure('[memory]\nbackend = "linux"\n')
    service.systemctl("start", check=False)
    assert service.properties("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "2", "0"]
    assert "no lower tier" in service.property("StatusText")


def test_with_its_drop_in_the_linux_backend_has_all_that_it_has_unconfined(service):
    """Compared by the program's own check of the machine, inside the service and outside."""
    report = "/run/report.json"
    service.drop_in(
        "check.conf",
        f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nStandardOutput=append:{report}\n"
        f"ExecStart=\nExecStart={PREFIX}/bin/pghotd --check-host --json\n",
    )

    def confined():
        service.system.run("rm", "-f", report)
        service.systemctl("start", check=False)
        return json.loads(service.system.path(report).read_text())

    unconfined = json.loads(service.system.run(f"{PREFIX}/bin/pghotd", "--check-host", "--json", check=False).stdout)
    assert confined() != unconfined
    service.shipped_drop_in("linux.conf")
    assert confined() == unconfined


def test_it_can_be_enabled_and_disabled(service):
    service.systemctl("enable", "--now")
    assert service.properties("ActiveState", "UnitFileState") == ["active", "enabled"]
    assert service.read("version").startswith("pghotd ")
    service.systemctl("disable", "--now")
    assert service.properties("ActiveState", "UnitFileState") == ["inactive", "disabled"]


def test_a_unix_socket_for_metrics_answers_as_shipped(service):
    path = "/run/pghotd-metrics.sock"
    service.configure(f'[metrics]\nsocket = "{path}"\n')
    service.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(service.system.path(path)))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as answer:
            assert b"pghotd_info{" in answer.read()


def test_a_port_for_metrics_answers_with_its_drop_in(service):
    service.shipped_drop_in("metrics-port.conf")
    service.configure("[metrics]\nport = 9877\n")
    service.start()
    get = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9877/metrics', timeout=10).read().decode())"
    assert "pghotd_info{" in service.system.run("python3", "-c", get).stdout


def test_tunables_written_at_run_time_are_kept(service):
    service.configure("[state]\nsave = true\n")
    service.start()
    service.system.run("sh", "-c", f"echo 3 > {TREE}/freq_threshold")
    service.systemctl("restart")
    assert service.read("freq_threshold") == "3\n"
    assert service.system.path("/var/lib/pghotd").stat().st_mode & 0o777 == 0o700
    service.systemctl("stop")
    service.system.run("rm", "-r", "/var/lib/pghotd")


def test_the_installed_configuration_is_valid(service):
    service.system.run("/usr/local/bin/pghotd", "--check-config", "--config", CONFIG)
