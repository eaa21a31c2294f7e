"""Print how fast pghotd is: ratios against limits measured in the same run, since machines are noisy (`make bench`)."""
