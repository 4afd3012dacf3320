"""Probing: features become scores with their uncertainty, scores a leaderboard, that a choice.

Read first: `protocol` (how one backbone is scored), `score` (bootstrap), `leaderboard` (the
record), `standing` (ranks and ties), `strategies` (who is picked), `ranking` (the whole thing over
a bank).
"""
