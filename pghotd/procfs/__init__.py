"""Read what the kernel tells in /proc and /sys; every reader takes its root as an argument."""
