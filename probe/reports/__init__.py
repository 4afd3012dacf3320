"""Reports: records become tables, pages and pictures.

Read first: `table` (the leaderboard on a terminal), then `rank_page` and `train_page` (what
`probe report` writes; templates, style and script are in `assets/`).
"""
