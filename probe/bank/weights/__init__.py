"""Weights: found, fetched, verified, and read into a network."""
