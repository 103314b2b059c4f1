"""`bertd bench load`: how much traffic each contestant takes before its tail misses an objective."""
