"""What runs inside the virtual machine: a test runner, a target process, and queries of where its pages are.

pytest is not used here: importing it takes an emulated CPU as long as booting. Tests are functions `test_*` of the
modules in `cases/`; they use plain asserts with a message, `figure()` to report a number, and context managers to clean
up.
"""
