"""The daemon: its configuration, how it is assembled and run, and what a service manager sees of it."""
