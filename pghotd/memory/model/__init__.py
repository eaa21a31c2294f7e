"""A model of a machine with tiered memory, in arrays: it behaves like such hardware without needing it."""
