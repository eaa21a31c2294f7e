"""A machine with tiered memory, in arrays: it needs no hardware and feels like one."""
