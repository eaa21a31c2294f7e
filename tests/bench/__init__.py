"""How fast pghotd is, as ratios to limits measured in the same run, since machines are noisy (`make bench`)."""
