"""Source drivers, which report accessed pages to the engine: one file per source, behind one small interface."""
