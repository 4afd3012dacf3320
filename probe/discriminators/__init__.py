"""Discriminators: heads on frozen backbones, their losses, their augmentations, for any loop."""
