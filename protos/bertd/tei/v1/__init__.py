"""Generated from tei.proto beside it by ``make protos``."""
