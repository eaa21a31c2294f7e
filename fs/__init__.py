"""Show pghotd as a tree of control files: the tree itself, its files, FUSE operations and the mount."""
