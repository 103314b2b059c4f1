"""Whether a graph answers as PyTorch eager does, alone and in batches."""
