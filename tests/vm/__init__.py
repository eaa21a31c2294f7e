"""The VM test: pghotd in a real Linux that has a node without CPUs, emulated by QEMU. `make vm-test` runs it.

This package runs on the host and needs no root; `guest/` is what runs inside.
"""
