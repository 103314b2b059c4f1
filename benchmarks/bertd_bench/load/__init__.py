"""Load on a real server over gRPC: saturation, light load, overload, bulk calls, a soak."""
