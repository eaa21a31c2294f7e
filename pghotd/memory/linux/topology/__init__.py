"""Topology of a real machine: nodes, tiers, memory blocks, and the uevents that announce changes."""
