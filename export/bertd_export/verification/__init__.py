"""`bertd verify` and `bertd inspect`: what a bundle is, and whether it still agrees."""
