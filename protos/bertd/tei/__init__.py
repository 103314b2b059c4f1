"""The protocol of text-embeddings-inference."""
