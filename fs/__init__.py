"""pghotd as a tree of control files: the tree itself, its files, the FUSE operations and the mount."""
