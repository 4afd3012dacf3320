"""Probing: features become scores with their uncertainty, scores a leaderboard, that a choice.

Read first: `protocol` (how one backbone is scored), `fit` (the scoring, with `c_search` for C,
`influence` for what each image does to a score and `units` for copies of an image), `uncertainty`
(intervals and comparisons), `leaderboard` (the record), `standing`
(ranks and ties), `verdicts` (what they mean, with `growth` for how many images are needed),
`strategies` (who is picked), `rank` (all of it, over a bank), `given` (over features), `rounds`
(who drops out early).
"""
