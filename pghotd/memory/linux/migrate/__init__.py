"""The road of a batch to move_pages(2): checks, brakes, queueing, the call, and what is remembered of it."""
