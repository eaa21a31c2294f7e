"""Kernels with another page size, on which real memory cannot be read."""

import errno
import os

import pytest

from pghotd.procfs import page_size


def test_pages_of_another_size_are_refused_in_one_sentence(monkeypatch):
    assert os.sysconf("SC_PAGE_SIZE") == page_size.SYSTEM_PAGE_SIZE
    monkeypatch.setattr(page_size, "SYSTEM_PAGE_SIZE", 4096)
    assert page_size.unsupported() == ""
    page_size.require_page_size()
    monkeypatch.setattr(page_size, "SYSTEM_PAGE_SIZE", 65536)
    with pytest.raises(OSError, match=r'pages of 65536 bytes, but only .* 4096 .*; backend = "model" works') as caught:
        page_size.require_page_size()
    assert caught.value.errno == errno.EOPNOTSUPP
