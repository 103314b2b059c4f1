"""Benchmarks of the engine alone: attention, efficiency, lanes, memory, bits."""
