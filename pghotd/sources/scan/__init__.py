"""Sources that scan pages: accessed bits, soft-dirty bits and page flags, section by section."""
