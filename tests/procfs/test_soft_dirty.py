"""The probe for soft-dirty bits, with a page of this process."""

import os

import numpy as np
import pytest

from pghotd.procfs import soft_dirty
from pghotd.procfs.pagemap import Resident

CLEAN = Resident(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
WRITTEN = Resident(np.array([7]), np.array([99]))
HIDDEN = Resident(np.array([7]), np.array([0]))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (CLEAN, WRITTEN, None),
        (CLEAN, CLEAN, "has no soft-dirty bits"),
        (WRITTEN, WRITTEN, "has no soft-dirty bits"),
        (CLEAN, HIDDEN, "hidden"),
    ],
)
def test_probe_with_a_page_of_this_process(tmp_path, monkeypatch, before, after, message):
    own = tmp_path / str(os.getpid())
    own.mkdir()
    (own / "stat").write_text(f"{os.getpid()} (x) S " + "1 " * 50)
    (own / "clear_refs").touch()
    answers = [before, after]
    # A fake pagemap would have to be as long as this process's address space.
    monkeypatch.setattr(soft_dirty, "read_resident", lambda *_, **__: answers.pop(0))
    if message is None:
        soft_dirty.probe(str(tmp_path))
    else:
        with pytest.raises(OSError, match=message):
            soft_dirty.probe(str(tmp_path))
    assert (own / "clear_refs").read_bytes() == b"4"


def test_the_probe_of_this_kernel_succeeds_or_gives_a_known_reason():
    message = ""
    try:
        soft_dirty.probe()
    except OSError as error:
        message = error.strerror or "?"
    assert message.startswith(("", "this kernel", "page frame numbers", "No such file", "Permission")[bool(message) :])
