"""Acceleration: what makes plain PyTorch faster, and can be switched off."""
