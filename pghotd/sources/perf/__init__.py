"""Sources that sample through perf_event_open(2): the processor's memory samples, and NUMA hint faults."""
