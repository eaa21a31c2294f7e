"""Know the machine: nodes, tiers, folios and their moves, behind one protocol with one file each behind it."""
