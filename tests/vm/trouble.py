"""What ends the VM test before any test has run: one line for the user."""


class TroubleError(Exception):
    """Something that this machine has not: the message says what, and what to do where that is known."""
