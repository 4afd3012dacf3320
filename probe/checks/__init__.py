"""Checks: what is wrong with the data, the weights or a run, and what a job would cost.

In: image sources, bank entries, a run's folder; out: findings, which `probe doctor` shows. Read
first: `findings` (what is said of a thing), then `data`, `cost` and `run`. `records` has the shape
of a training run's files.
"""
