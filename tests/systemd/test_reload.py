"""Reloads: a valid configuration is applied, an invalid one is refused and changes nothing."""

from tests.systemd.boot import until

GOOD = "[pghot]\nfreq_threshold = 3\n"


def test_a_valid_configuration_is_applied_at_run_time(service):
    service.configure("")
    service.start()
    pid = service.pid()
    assert service.read("freq_threshold") == "2\n"
    service.configure(GOOD)
    service.systemctl("reload")
    until(lambda: service.read("freq_threshold") == "3\n", "the new threshold")
    assert service.wait_for_line("reloaded").priority == 6
    assert service.properties("ActiveState", "MainPID", "NRestarts") == ["active", pid, "0"]


def test_an_invalid_configuration_is_refused_and_changes_nothing(service):
    service.configure(GOOD)
    service.start()
    pid = service.pid()
    service.configure("[pghot]\nfreq_threshold = 99\nmode = 'default'\n")
    done = service.system.run("systemctl", "reload", "pghotd", check=False)
    assert done.returncode != 0
    assert "failed" in done.stderr
    line = service.wait_for_line("99")
    assert (line.priority, line.message) == (3, "/etc/pghotd.toml: pghot.freq_threshold: 99 is not in 1..3")
    assert service.properties("ActiveState", "SubState", "MainPID") == ["active", "running", pid]
    assert service.property("StatusText").startswith("running;")
    assert service.read("freq_threshold") == "3\n"
    # The daemon has not even been notified.
    assert not any("nothing has changed" in one.message for one in service.journal())


def test_a_change_that_needs_a_restart_is_refused_as_a_whole(service):
    service.configure(GOOD)
    service.start()
    pid = service.pid()
    service.configure("[pghot]\nfreq_threshold = 1\nmode = 'precise'\n")
    service.systemctl("reload")
    line = service.wait_for_line("nothing has changed")
    assert line.priority == 3
    assert line.message.endswith("needs a restart: pghot.mode")
    assert service.properties("ActiveState", "MainPID") == ["active", pid]
    assert service.read("freq_threshold") == "3\n"
