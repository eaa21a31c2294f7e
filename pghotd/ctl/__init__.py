"""pghotctl, which works only through the mounted files: that also shows that they suffice."""
