"""The path of a batch to move_pages(2): checks, brakes, queueing, the call, and the history kept of it."""
