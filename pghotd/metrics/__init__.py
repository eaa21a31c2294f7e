"""Show what the daemon does to monitoring systems, as OpenMetrics."""
