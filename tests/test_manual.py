"""Manual pages, completions and generated documents, compared with their sources."""

import shutil
import subprocess

import pytest

from pghotd.cli import mount_helper, program
from pghotd.ctl import program as ctl
from pghotd.daemon.config import CONFIG_FILE
from pghotd.engine.counters import VMSTAT
from pghotd.engine.tunables import TUNABLES
from pghotd.manual import __main__ as manual
from tests.program.daemons import ROOT
from tests.requirements import require

CONFIGURATIONS = [str(ROOT / "docs/pghotd.toml"), str(ROOT / "docs/pghotd-linux.toml")]


def options_of(parser):
    """Return every option of a parser and of its commands."""
    found = set()
    for action in parser._actions:
        found.update(option for option in action.option_strings if option not in ("-h", "--help"))
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                found |= options_of(command)
    return found


def plain(page):
    return page.replace("\\-", "-").replace("\\e", "\\")


@pytest.mark.parametrize("name", manual.PAGES)
def test_man_finds_no_fault_in_a_page(name):
    require(shutil.which("man") is not None, "no man(1)", of="man")
    page = manual.PAGES[name](CONFIGURATIONS)
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-"],
        input=page,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"MANROFFSEQ": "", "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == ""
    assert done.stdout.split()[0] == f"{name.rpartition('.')[0].upper()}({name[-1]})"


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("pghotd.8", program.parser()),
        ("pghotctl.1", ctl.parser()),
        ("mount.pghotd.8", mount_helper.parser()),
    ],
)
def test_a_page_names_every_option_and_tunable(name, parser):
    page = plain(manual.PAGES[name](CONFIGURATIONS))
    assert {option for option in options_of(parser) if option not in page} == set()
    assert {tunable for tunable in TUNABLES if tunable not in page} == set()


def test_the_daemons_page_names_every_counter_and_its_file():
    page = plain(manual.PAGES["pghotd.8"]([]))
    assert {name for name in VMSTAT if name not in page} == set()
    assert str(CONFIG_FILE) in page


def test_the_configuration_page_contains_the_commented_files():
    page = plain(manual.PAGES["pghotd.toml.5"](CONFIGURATIONS))
    for name in CONFIGURATIONS:
        with open(name) as file:
            assert file.read() in page


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "-n")])
def test_completions_name_every_command(shell, check, tmp_path):
    text = manual.completion(shell)
    for command in ("status", "top", "explain", "heatmap", "freq_threshold"):
        assert command in text
    if shutil.which(shell):
        file = tmp_path / "completion"
        file.write_text(text)
        subprocess.run([shell, check, str(file)], check=True, timeout=60)


def test_the_document_of_counters_is_up_to_date():
    assert (ROOT / "docs/counters.md").read_text() == manual.counters_md()
