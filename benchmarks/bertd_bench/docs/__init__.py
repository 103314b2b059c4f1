"""Measured parts of documents, written from the committed results."""
