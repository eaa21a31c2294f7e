"""Source that sees regions of physical memory through DAMON."""
