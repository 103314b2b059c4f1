"""What every RPC passes before its handler: monitoring, keys, decoding."""
