"""What a ranking's numbers mean for its reader: sentences that say what to do.

Terminal, JSON, page and a training run's log show them as they are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from probe.images.audit import TELLING
from probe.probing.config import RankOptions
from probe.probing.growth import images_needed
from probe.probing.leaderboard import Leaderboard, Row, Verdict
from probe.probing.protocol import CHANCE, ProbeResult
from probe.probing.uncertainty import Spread

SATURATED = -0.01  # nats; above, a probe is 99 % sure of the right answer
OF_JPEG = {"compression", "JPEG tables"}  # what --match-jpeg evens out
# Gaps that are known to be smaller do not matter, and nothing is said of how to find them.
MATTERS = {"score": 0.005, "accuracy": 0.005}
UNITS = {"score": "nats", "accuracy": "of accuracy"}
MOST_NAMED = 100_000  # images of each class
OVERCONFIDENT = 0.05  # nats; identical sets of 16 are below in one of twenty draws


def verdicts(
    board: Leaderboard,
    judged: Spread,
    results: Mapping[str, ProbeResult],
    options: RankOptions,
) -> list[Verdict]:
    """Return what a leaderboard means, the gravest first.

    Args:
        board: complete.
        judged: how what it is ordered by varies, in the order of the rows with results.
        results: name → probe result.
        options: of the ranking.
    """
    found = [*_encoding(board, options), *_null(board)]
    if not board.ranked:
        return found
    if board.winner is None:
        return [*found, _no_winner(board, results)]
    if all(row.score is not None and row.score > SATURATED for row in board.ranked):
        return [*found, _saturated(board)]
    return [*found, *_too_few(board, judged, results)]


def _encoding(board: Leaderboard, options: RankOptions) -> Iterator[Verdict]:
    """Say what the audit found, apart from what `--match-jpeg` has evened out."""
    evened = OF_JPEG if options.match_jpeg else set()
    found = [finding for finding in board.audit if finding["property"] not in evened]
    telling = [f["message"] for f in found if f["accuracy"] > TELLING]
    if telling:
        yield Verdict(
            "encoding",
            "Encoding gives the sets away, so scores may be about files and not about content: "
            + " ".join(telling),
        )
    for finding in found:
        if finding["accuracy"] <= TELLING:
            yield Verdict("colours", finding["message"])


def _null(board: Leaderboard) -> Iterator[Verdict]:
    for row in board.rows:
        if row.role == "null" and row.above_chance:
            yield Verdict(
                "null-above",
                "The null row is above chance: the probe tells reals from other reals, as near-"
                "duplicates among them let it. Rank with --near-duplicates, or do not trust small "
                "scores.",
            )
        elif row.role == "null" and _is_overconfident(row):
            yield Verdict(
                "null-below",
                "The null row is below chance: probes are sure of what is not there, so scores are "
                + (
                    "too low by about as much. Use more images, or read the accuracy alone."
                    if board.protocol == "fair"
                    else "no measure here. Use --protocol fair or more images, or read the "
                    "accuracy alone."
                ),
            )


def _is_overconfident(row: Row) -> bool:
    """Return whether a null row's score is below chance by more than luck and by what matters."""
    assert row.score is not None and row.score_high is not None
    return row.score_high < CHANCE and row.score < CHANCE - OVERCONFIDENT


def _no_winner(board: Leaderboard, results: Mapping[str, ProbeResult]) -> Verdict:
    first = next(iter(results.values()))
    if np.isin(first.groups[first.n_real :], first.groups[: first.n_real]).any():
        remedy = "Remove the images that are in both sets, and rank again."
    else:
        remedy = "More images would show smaller differences."
        if board.resolution is not None:
            remedy = (
                "More images would show smaller differences, and --near-duplicates finds images "
                "that are in both sets in other encodings."
            )
    return Verdict(
        "no-winner",
        f"No winner: the best of {len(board.ranked)} does not tell the two sets apart beyond "
        f"luck, so all share the first rank and none is picked. {remedy}",
    )


def _saturated(board: Leaderboard) -> Verdict:
    return Verdict(
        "saturated",
        "Saturated: every backbone tells the two sets apart almost without error. What order is "
        "left is one of margins, and narrower features have wider ones whatever they see. To see "
        "which tells more, rank fakes that are closer to the reals, or fewer images (--num).",
    )


def _too_few(
    board: Leaderboard, judged: Spread, results: Mapping[str, ProbeResult]
) -> Iterator[Verdict]:
    """Say what so many images cannot tell, if several share the first rank."""
    places = {row.name: i for i, row in enumerate(r for r in board.rows if r.name in results)}
    members = [places[row.name] for row in board.ranked]
    first = [places[row.name] for row in board.ranked if row.rank == 1]
    if len(first) < 2:
        return
    pairs = [(a, b) for a in first for b in first if a < b]
    least = min(judged.least_difference(*pair, members) for pair in pairs)
    if least == math.inf:  # they are one and the same
        return
    unit, images = UNITS[board.criterion], min(board.n_real, board.n_fake)
    yield Verdict(
        "too-few",
        f"{len(first)} backbones share the first rank: {images} images of each class are too few "
        f"for any difference smaller than {least:.2g} {unit}, which is missed more often than "
        "found. Use more images, or take any of these.",
        least,
    )
    yield from _more_images(board, judged, members)


def _more_images(board: Leaderboard, judged: Spread, members: Sequence[int]) -> Iterator[Verdict]:
    """Say how many images would tell the first two apart, unless their gap is too small to matter.

    Args:
        board: two backbones at least share its first rank.
        judged: see `verdicts`.
        members: the places in `judged` of the ranked, best first.
    """
    if max(map(abs, judged.gap(*members[:2]))) < MATTERS[board.criterion]:
        return
    needed = images_needed(judged, members, min(board.n_real, board.n_fake))
    names = " from ".join(row.name for row in board.ranked[:2])
    if needed > MOST_NAMED:
        what, value = f"More than {_spaced(MOST_NAMED)} images of each class", None
    else:
        value = float(f"{needed:.2g}")
        what = f"About {_spaced(value)} images of each class"
    yield Verdict("more-images", f"{what} would tell {names}, in four of five draws.", value)


def _spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")
