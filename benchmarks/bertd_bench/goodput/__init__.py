"""`bertd bench load`: how much traffic each takes before its tail misses an objective."""
