"""What runs inside the virtual machine: a test runner, a target process, and what tells where its pages are.

pytest is not here: to import it takes an emulated CPU as long as to boot. Tests are functions `test_*` of the modules
in `cases/`; they use plain asserts with a message, `figure()` to report a number, and context managers to clean up.
"""
