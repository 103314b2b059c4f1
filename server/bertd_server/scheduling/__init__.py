"""Which texts are computed when: the queue, batches by predicted cost, lanes, and who is told."""
