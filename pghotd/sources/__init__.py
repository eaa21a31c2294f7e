"""Tell the engine which pages were accessed: one file a source, behind one small interface."""
