"""Readings of a real machine: states of frames, zones, room, and what watched processes map."""
