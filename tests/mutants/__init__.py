"""Mutation testing: small changes of meaning, one at a time, that tests should catch: `make mutants SEED=N`."""
