"""The engine that decides which pages are hot: records, admission, tunables and counters, with no I/O and no clock."""
