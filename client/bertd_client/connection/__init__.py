"""Where a client's calls go, and how both sides are sure of each other."""
