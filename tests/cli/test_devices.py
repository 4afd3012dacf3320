"""`--device`: what is not here, or not supported, is one sentence before any work."""

import pytest


@pytest.mark.parametrize("device", ["mps", "xpu", "hip", "meta", "cuda:99", "nonsense"])
@pytest.mark.parametrize(
    "command", ["rank", "metrics", "train", "train --gpus 2", "generate", "doctor", "score"]
)
def test_every_command_refuses_it(cli, reals, fakes, checkpoint, tmp_path, command, device):
    name, *more = command.split()
    given = {
        "rank": ("--real", reals, "--gen", fakes),
        "metrics": ("--real", reals, "--gen", fakes),
        "train": ("--real", reals, "--outdir", tmp_path / "runs"),
        "generate": ("--gen", checkpoint, "--seeds", "0", "--outdir", tmp_path / "out"),
        "doctor": ("--real", reals),
        "score": (fakes, "--run", tmp_path),
    }[name]
    done = cli(name, *given, *more, "--device", device)
    assert done.code == 2 and done.err.startswith("Error: --device: "), done.err
    assert done.err.count("\n") == 1 and not done.out
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()
