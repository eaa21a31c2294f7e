"""Readers of /proc and /sys: one per file, each taking the root as an argument, whole arrays at a time.

Normal events in the life of processes surface as OSError, for the caller to count by errno: gone (ESRCH, ENOENT; a
process that no longer has memory reads as empty, which is ESRCH too), not accessible (EACCES, EPERM), or not of the
expected form (EBADMSG).
"""
