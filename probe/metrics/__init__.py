"""Metrics: distances between two sets of features.

Feature tables (N, d) of real and generated images come in, numbers with their uncertainty go out.
Read first: `frechet`, then `kernel`. Neither knows where features come from.
"""
