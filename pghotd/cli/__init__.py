"""Command lines of the daemon and of the mount helper."""
