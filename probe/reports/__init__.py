"""Reports: records become tables, pages and pictures.

Read first: `table` (the leaderboard on a terminal), then `grids` (contact sheets).
"""
