"""Small changes of meaning, one at a time, and whether a test sees each: `make mutants SEED=N`."""
