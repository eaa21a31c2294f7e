"""The real program's metrics, read as monitoring systems do."""

import http.client
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families

from pghotd.engine.tunables import TUNABLES
from tests.program.daemons import DEADLINE_S, LOWER_FIRST, ROOT, SMALL


class Connection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(self._path)


def get(path, target="/metrics", method="GET"):
    """Return status, content type and body of a response."""
    connection = Connection(path)
    connection.request(method, target)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.getheader("content-type"), body


def samples(text):
    """Return the value of each sample, by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def configured(place, tmp_path):
    path = place / "metrics.sock"
    return path, SMALL + f'[metrics]\nsocket = "{path}"\ntextfile = "{place}/pghotd.prom"\ntextfile_interval_s = 1\n'


def wait_until_promoted(program, pages):
    with open(program.mountpoint / "vmstat") as file:
        poller = select.poll()
        poller.register(file, select.POLLERR | select.POLLPRI)
        while f"pgpromote_success {pages}\n" not in file.read():
            assert poller.poll(20_000)
            file.seek(0)


def test_every_metric_has_help_and_a_unit_and_agrees_with_the_files(start, configured):
    path, config = configured
    program = start(config=config)
    program.write("inject", f"{LOWER_FIRST}+100 -1 pgtscans 2\n")
    wait_until_promoted(program, 100)
    status, kind, text = get(path)
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert text.endswith("# EOF\n")
    families = list(text_string_to_metric_families(text))
    assert len(families) > 30
    for family in families:
        assert family.documentation, family.name
        assert family.type == "info" or (family.unit and family.name.endswith(f"_{family.unit}")), family.name
    found = samples(text)
    assert found["pghotd_promoted_pages_total", ("node", "0")] == 100
    assert found["pghotd_recorded_reports_total", ("kind", "pgtscans")] == 1
    assert found["pghotd_recorded_accesses_total",] == 200
    assert found["pghotd_node_memory_bytes", ("node", "1"), ("tier", "lower")] == 512 << 20
    assert found["pghotd_tunable_freq_threshold_accesses",] == 2
    assert sum(name[0].startswith("pghotd_tunable_") for name in found) == len(TUNABLES)
    assert not any("/plain" in str(name) for name in found), "an owner is a label, and their number is unbounded"


def test_a_driver_exports_its_coverage_and_cost(start, configured):
    path, config = configured
    start(config=config + '[sources.workload]\nsize = "4M"\nhot_size = "1M"\nrate = 1000\n')
    found = samples(get(path)[2])
    assert found["pghotd_source_covered_ratio", ("source", "workload")] == 1
    assert found["pghotd_source_cpu_seconds_total", ("source", "workload")] >= 0


def test_the_textfile_is_always_whole(start, configured, place):
    program = start(config=configured[1])
    file = place / "pghotd.prom"
    while not file.exists():
        program.read("version")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    seen = {file.stat().st_mtime_ns}
    while len(seen) < 3:
        families = {family.name: family for family in prometheus_families(file.read_text())}
        assert {family.type for family in families.values()} == {"counter", "gauge"}
        assert families["pghotd_node_memory_bytes"].samples[-1].value == 512 << 20
        assert len(families) > 30
        seen.add(file.stat().st_mtime_ns)
    assert program.stop()[0] == 0
    assert not file.exists(), "a stopped daemon's metrics would stay forever"


def test_other_requests_are_answered_or_disconnected(start, configured):
    path, config = configured
    program = start(config=config)
    assert get(path, "/")[0] == 200
    assert get(path, "/metrics?name=x")[0] == 200
    assert get(path, "/other")[0] == 404
    assert get(path, method="POST")[0] == 405
    assert get(path, method="HEAD")[::2] == (200, "")
    for garbage in (
        b"\0" * 100,
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 9999,
        b"",
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(path))
            try:
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                client.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                pass
    idle = [socket.socket(socket.AF_UNIX) for _ in range(15)]
    for client in idle:
        client.connect(str(path))
    assert get(path)[0] == 200
    for client in idle:
        client.close()
    assert program.stop()[0] == 0
    assert not os.path.lexists(path)


def test_the_socket_of_a_killed_daemon_is_replaced_and_a_file_is_not(start, configured):
    path, config = configured
    program = start(config=config)
    program.stop(signal.SIGKILL)
    again = start(config=config)
    assert again.ready
    assert get(path)[0] == 200
    again.stop()
    path.write_text("precious")
    refused = start(config=config)
    assert not refused.ready
    code, message = refused.ended()
    assert code == 2
    assert message == f"pghotd: metrics.socket: {path}: exists and is not a socket\n"
    assert path.read_text() == "precious"
    path.unlink()


def test_a_loopback_port_answers_only_on_its_address(start):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = start(config=SMALL + f"[metrics]\nport = {port}\n")
    assert program.ready
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    connection.request("GET", "/metrics")
    assert connection.getresponse().read().endswith(b"# EOF\n")
    with socket.socket() as other:
        other.settimeout(DEADLINE_S)
        assert other.connect_ex(("127.0.0.2", port)) != 0
    second = subprocess.run(
        [sys.executable, "-m", "pghotd", "--config", "/dev/stdin", "--mountpoint", str(program.mountpoint) + "2"],
        input=SMALL + f"[metrics]\nport = {port}\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.startswith(f"pghotd: metrics.port: {port}: ")
    assert second.stderr.count("\n") == 1


def test_a_full_disk_loses_the_textfile_with_one_warning(start):
    program = start(config=SMALL + '[metrics]\ntextfile = "/dev/full/pghotd.prom"\ntextfile_interval_s = 1\n')
    program.write("inject", f"{LOWER_FIRST}+10 -1 pgtscans 2\n")
    wait_until_promoted(program, 10)
    code, log = program.stop()
    assert (code, log.count("metrics are not written")) == (0, 1)


def test_the_dashboard_uses_only_existing_metrics(start, configured):
    program = start(config=configured[1])
    assert program.ready
    names = {name[0] for name in samples(get(configured[0])[2])}
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    used = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"pghotd_\w+", target["expr"])
    }
    assert len(used) > 8
    assert used <= names
