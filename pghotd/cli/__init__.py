"""Command lines: of the daemon, of the mount helper, and the manual generated from them."""
