"""Metrics: distances between two sets of features.

Feature tables (N, d) of real and generated images come in, numbers with their uncertainty go out.
Read first: `frechet`, then `kernel`, `prdc`; none of them knows where features come from. `measure`
does: two image sources and a bank in, a `Measurement` out.
"""
