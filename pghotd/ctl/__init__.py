"""The client pghotctl, which uses nothing but the mounted files."""
