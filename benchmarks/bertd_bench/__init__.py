"""Comparisons of bertd with PyTorch eager, on the machine at hand."""
