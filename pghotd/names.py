"""Names by which the mounted tree is known to users and to the kernel."""

#: Where the tree is mounted by default.
MOUNTPOINT = "/run/pghot"
#: The device that mount tables show by default.
SOURCE = "pghotd"
#: The type of file system, as the kernel makes it of subtype=pghotd.
FSTYPE = "fuse.pghotd"
