"""Reports: turn records into tables, pages and pictures.

Read first: `rank_table` (the leaderboard on a terminal), then `rank_page` and `train_page`, which
`probe report` writes; templates, style and script are in `assets/`.
"""
