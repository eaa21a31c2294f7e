"""Figures on machines of terabytes, and of the control plane beside libfuse in C: `make bench-scale`."""
