"""Weights: find, fetch and verify them, and read them into a network."""
