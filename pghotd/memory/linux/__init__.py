"""Backend for a real Linux machine: its nodes and tiers, what may move, the system call that moves it, and brakes."""
