"""Checks: what is wrong with the data, the weights or a run, and what a job would cost.

Takes image sources, bank entries and run folders; returns findings, which `probe doctor` shows.
Read first: `findings`, then `data`, `cost` and `run`. `records` defines the fields of a training
run's files.
"""
