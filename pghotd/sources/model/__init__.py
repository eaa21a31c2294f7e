"""Sources that feed the memory model with accesses: a generated workload, and real processes mirrored on it."""
