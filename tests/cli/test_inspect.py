"""`probe inspect` through the command line: good files, hostile ones, none."""

import json
import os
import pickle

from generators.pickles import stylegan2_pickle
from inputs import tiny_generator


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_snapshot_is_described(cli, checkpoint):
    result = cli("inspect", checkpoint, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    count = sum(p.numel() for p in tiny_generator().parameters())
    wanted = {"family": "StyleGAN2", "resolution": 32, "z_dim": 16, "classes": 0, "kimg": 1.5,
              "parameters": count, "problem": None, "globals": []}  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
    text = cli("inspect", checkpoint)
    assert text.code == 0 and f"{count:,}" in text.out and "problem" not in text.out


def test_a_genuine_pickle_lists_what_it_refers_to(cli, tmp_path):
    path = tmp_path / "G.pkl"
    path.write_bytes(stylegan2_pickle(tiny_generator(c_dim=3)))
    result = cli("inspect", path, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["classes"] == 3 and "training_set_kwargs" in found["ignored"]
    reconstruct = "torch_utils.persistence._reconstruct_persistent_obj"
    assert f"{reconstruct} (would have run source text of the file)" in found["globals"]
    assert not any("not allowed" in name for name in found["globals"])


def test_a_hostile_pickle_is_shown_and_not_run(cli, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "G.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Canary(canary)}))
    result = cli("inspect", path)
    assert result.code == 1
    assert "posix.mkdir (not allowed: would have been called)" in result.out
    assert "problem:" in result.out and not canary.exists()


def test_what_is_no_checkpoint_says_so(cli, tmp_path):
    page = tmp_path / "G.pkl"
    page.write_text("<html>not found</html>")
    result = cli("inspect", page)
    assert result.code == 1 and "web page" in result.out
    os.mkfifo(tmp_path / "pipe.pkl")
    os.mkdir(tmp_path / "none")
    for name, words in (
        ("pipe.pkl", "is not a regular file"),
        ("none", "folder without snapshots"),
        (".", "holds checkpoints (G.pkl, pipe.pkl). Name one of them."),
    ):
        other = cli("inspect", tmp_path / name)
        assert other.code == 1 and words in other.err
    gone = cli("inspect", tmp_path / "gone.pkl")
    assert gone.code == 1 and "cannot be read" in gone.err
