"""Read /proc and /sys: one file a reader, each taking the root as an argument, whole arrays at a time.

What happens to processes all the time surfaces as OSError, for the caller to count by errno: gone (ESRCH, ENOENT; a
process without memory any more reads as empty, which is ESRCH too), not ours to see (EACCES, EPERM), not of the form
that it should have (EBADMSG).
"""
