"""What every RPC passes before its handler: watching, keys, decoding."""
