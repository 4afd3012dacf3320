"""The commands to run next, with the settings filled in."""

import shlex

from probe.training.config import TrainConfig


def next_commands(real: str, gen: str, config: TrainConfig, bank: str | None) -> tuple[str, ...]:
    """Return the commands for a ranking and a training run that are possible here.

    Args:
        real: the value of `--real`.
        gen: the value of `--gen`.
        config: training options.
        bank: the bank file the user named, or None.
    """
    path, chosen = shlex.quote(real), [] if bank is None else ["--bank", shlex.quote(bank)]
    rank = ["probe rank --real", path, "--gen", shlex.quote(gen), "--out ranking", *chosen]
    train = ["probe train --real", path, "--strategy", config.strategy]
    if config.strategy != "none":
        train += ["--k", str(config.k)]
    train += ["--resolution", str(config.resolution)]
    if config.eval_num == 0:
        train.append("--eval-num 0")
    return " ".join(rank), " ".join([*train, *chosen])
