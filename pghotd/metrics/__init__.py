"""Metrics of the daemon for monitoring systems, as OpenMetrics."""
