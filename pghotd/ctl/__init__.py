"""Be pghotctl, which works through the mounted files alone: that also shows that they suffice."""
