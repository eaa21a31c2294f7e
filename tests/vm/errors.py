"""The error that ends a run before any test: one line for the user."""


class CannotRunError(Exception):
    """This machine lacks something: the message names it, and what to do where that is known."""
