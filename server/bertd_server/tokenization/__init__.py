"""Texts and pairs of texts to token sequences: queue, reader, truncation, windows."""
