"""What can be exported, how near to PyTorch it is, and how much faster."""
