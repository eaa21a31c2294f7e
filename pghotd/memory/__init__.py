"""Memory backends: nodes, tiers, folios and their moves, behind one protocol, in one package each."""
