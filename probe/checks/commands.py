"""What to run next, with the settings filled in."""

import shlex

from probe.training.config import TrainConfig


def next_commands(real: str, gen: str, config: TrainConfig, bank: str | None) -> tuple[str, ...]:
    """Return the commands of a ranking and of a training that are possible here.

    Args:
        real: what `--real` is to be given.
        gen: what `--gen` is to be given.
        config: options of the training.
        bank: the bank file that was named, or None.
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
