"""Tasks that drive the engine: kmigrated for each lower-tier node, the census of records, and the ageing sweeps."""
