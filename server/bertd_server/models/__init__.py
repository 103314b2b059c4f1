"""Models that answer: found in folders, loaded, measured, exchanged, unloaded."""
