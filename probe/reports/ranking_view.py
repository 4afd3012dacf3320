"""A ranking as text and as HTML: its leaderboards, one after the other."""

from probe.probing.rank import Ranking
from probe.reports import rank_table


def as_table(ranking: Ranking) -> str:
    """Return the tables of all protocols."""
    return rank_table.render(list(ranking.leaderboards.values()), "table")


def as_html(ranking: Ranking) -> str:
    """Return the tables of all protocols as HTML."""
    return "".join(map(rank_table.as_html, ranking.leaderboards.values()))
