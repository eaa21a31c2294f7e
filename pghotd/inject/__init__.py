"""Accesses injected through the control tree, as text or as binary records."""
