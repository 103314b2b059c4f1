"""`bertd bench compare`: bertd against every peer, each in a process of its own."""
