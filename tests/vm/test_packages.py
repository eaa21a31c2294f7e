"""Packages come from where the host's apt configuration says; a missing one is reported in one line."""

import pytest

from tests.vm import packages
from tests.vm.errors import CannotRunError
from tests.vm.packages import Apt, Archive, parse_archive, source_lines

CONFIGURED = """\
http://elsewhere.example/tools/ nodistro main
http://debian.example/debian/ bookworm main
http://debian.example/debian/ bookworm contrib
http://debian.example/debian/ bookworm-updates main
http://security.example/debian-security/ bookworm-security main
"""


def test_the_archive_is_found_among_others():
    assert parse_archive(CONFIGURED) == Archive(
        "http://debian.example/debian/", "http://security.example/debian-security/"
    )
    assert parse_archive("http://debian.example/debian/ trixie main\n") == Archive(
        "http://debian.example/debian/", None
    )
    assert parse_archive("http://ubuntu.example/ubuntu noble main\nbroken line\n") is None


def test_the_lines_name_only_the_release_of_the_guest():
    lines = source_lines(Archive("http://a/", "http://b/"), "[x] ").splitlines()
    assert lines == [
        "deb [x] http://a/ bookworm main",
        "deb [x] http://a/ bookworm-backports main",
        "deb [x] http://b/ bookworm-security main",
    ]
    assert len(source_lines(Archive("http://a/", None), "").splitlines()) == 2


def test_a_missing_apt_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRunError, match=r"^apt-get is missing"):
        Apt(tmp_path)


def test_a_failure_is_reported_by_only_its_first_error():
    with pytest.raises(CannotRunError, match=r"^sh: no such thing; a cold cache needs the network$"):
        packages._run(["sh", "-c", "echo words; echo 'E: no such thing' >&2; echo 'E: and so on' >&2; exit 100"])
