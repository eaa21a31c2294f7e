"""Settings of any part: their declarations, and how they are read from TOML."""
