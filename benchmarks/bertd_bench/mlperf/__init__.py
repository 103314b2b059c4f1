"""`bertd bench mlperf`: MLPerf's own load generator in front of bertd. No official result."""
