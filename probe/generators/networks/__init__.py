"""Generator networks in plain PyTorch."""
