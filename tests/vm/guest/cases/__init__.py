"""The tests of the guest, a module for each theme; `RUNS` of `tests/vm/__main__.py` says which run on which machine."""
