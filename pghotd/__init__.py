"""Track hot pages and promote them from slow memory to fast memory, as pghot does, in user space."""

__version__ = "0.1.0"
