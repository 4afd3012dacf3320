"""Writes a ranking's files to a folder."""

import csv
import io
from pathlib import Path

from probe.files import write_json, write_text
from probe.probing.rank import Ranking
from probe.reports.rank_table import render
from probe.reports.text import csv_cell
from probe.run_files import LEADERBOARD_FILE, LEADERBOARD_TABLE, SCORES_FILE
from probe.scoring.probes import save_probes


def save_ranking(ranking: Ranking, folder: Path) -> None:
    """Write leaderboard.json, leaderboard.csv, scores.csv and the probes, each file atomically.

    There are no probes if features were given.

    With two protocols, leaderboard.json is a list and the tables have a protocol column.
    """
    boards = list(ranking.leaderboards.values())
    records = [board.to_dict() for board in boards]
    write_json(folder / LEADERBOARD_FILE, records[0] if len(records) == 1 else records)
    write_text(folder / LEADERBOARD_TABLE, render(boards, "csv"))
    write_text(folder / SCORES_FILE, scores_csv(ranking))
    if ranking.spaces:  # given features do not say how to compute those of new images
        save_probes(ranking, folder)


def scores_csv(ranking: Ranking) -> str:
    """Return one line per image, backbone and protocol.

    Columns: protocol, backbone, class, image, group (the same number for copies of one image),
    score (held-out log-probability of the correct class, nats), logit (positive for "generated").
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["protocol", "backbone", "class", "image", "group", "score", "logit"])
    for protocol, results in ranking.results.items():
        for name, result in results.items():
            columns = (
                ranking.captions, result.groups, result.image_scores, result.image_logits
            )  # fmt: skip
            for i, (caption, group, score, logit) in enumerate(zip(*columns, strict=True)):
                kind = "real" if i < result.n_real else "generated"
                cells = (protocol, name, kind, caption, group, f"{score:.6f}", f"{logit:.6f}")
                writer.writerow(map(csv_cell, cells))
    return buffer.getvalue()
