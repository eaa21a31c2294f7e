"""Know a real Linux machine: its nodes and tiers, what may move, the one system call that moves it, and the brakes."""
