"""Probing: features become scores with their uncertainty, scores a leaderboard, that a choice.

Read first: `protocol` (how one backbone is scored), `evaluate` (the scoring, with `strength` for
its regularisation and `units` for copies of an image), `score` (bootstrap), `leaderboard` (the
record), `standing` (ranks and ties), `strategies` (who is picked), `ranking` (the whole thing over
a bank). `fitted` and `scoring` take a ranking's probes to images that it has not seen.
"""
