"""`bertd bench load`: the traffic that each contestant takes before its tail misses an objective."""
