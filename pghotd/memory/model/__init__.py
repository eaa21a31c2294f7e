"""A model of a machine with tiered memory, in arrays: it needs no such hardware and behaves like it."""
