"""TorchScript and torch.export programs, and functions of the user's own."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

import probe
from probe.errors import CheckpointError, UsageError
from probe.generators.callables import CallableSource, call_function, import_function
from probe.generators.config import SampleOptions
from probe.generators.files.formats import load_generator
from probe.generators.sampler import GeneratorSource

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")


class Small(nn.Module):
    """A generator that scripts and exports; classes shift the image."""

    def __init__(self, c_dim: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.z_dim, self.c_dim = 16, c_dim
        self.layer = nn.Linear(16 + c_dim, 3 * 64)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z).reshape(-1, 3, 8, 8).tanh()


class Conditional(Small):
    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([z, c], dim=1)).reshape(-1, 3, 8, 8).tanh()


class Noisy(Small):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.layer(z).reshape(-1, 3, 8, 8).tanh()
        return x + 0.1 * torch.randn_like(x)


class Flat(Small):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z)


def script(network, path):
    torch.jit.script(network).save(str(path))
    return path


def export(network, path, *, fixed=None):
    z, c = torch.zeros(fixed or 2, 16), torch.zeros(fixed or 2, network.c_dim)
    inputs = (z, c) if network.c_dim else (z,)
    n = torch.export.Dim("n")
    shapes = None if fixed else tuple({0: n} for _ in inputs)
    torch.export.save(torch.export.export(network, inputs, dynamic_shapes=shapes), path)
    return path


KINDS = {
    "torchscript": lambda network, path: script(network, path / "G.pt"),
    "export": lambda network, path: export(network, path / "G.pt2"),
    "export of batches of 3": lambda network, path: export(network, path / "G.pt2", fixed=3),
}


@pytest.fixture(params=KINDS)
def write(request, tmp_path):
    return lambda network: KINDS[request.param](network, tmp_path)


@pytest.mark.parametrize("network", [Small(), Conditional(4)])
def test_a_program_gives_its_own_images(write, network):
    found = load_generator(write(network), run_code=True).generator
    z, c = torch.randn(5, 16), torch.eye(4)[[0, 1, 2, 3, 1]]
    inputs = (z, c) if network.c_dim else (z,)
    with torch.no_grad():
        torch.testing.assert_close(found(*inputs), network(*inputs))
    assert (found.z_dim, found.c_dim, found.img_resolution) == (16, network.c_dim, 8)


def test_nothing_is_loaded_unless_it_is_trusted(cli, write, reals, bank, tmp_path):
    path = write(Small())
    for command in (("generate", "--outdir", tmp_path / "out"), ("rank", "--real", reals)):
        result = cli(*command, "--gen", path)
        assert result.code == 1 and "--run-code" in result.err
    looked = json.loads(cli("inspect", path, "--json").out)
    assert "program: drawing images runs it" in looked["family"]
    refused = cli("train", "--real", reals, "--init", path, "--outdir", tmp_path / "runs")
    assert refused.code == 2 and "only StyleGAN2 networks" in refused.err


def test_rank_and_generate_run_a_trusted_program_and_say_so(cli, write, reals, bank, tmp_path):
    path = write(Small())
    ranked = cli("rank", "--real", reals, "--gen", path, "--bank", bank, "--run-code")
    assert ranked.code == 0 and "is a program; it is run" in ranked.err
    out = tmp_path / "out"
    made = cli("generate", "--gen", path, "--run-code", "--seeds", "0-4", "--outdir", out)
    assert made.code == 0 and "it is run" in made.err and len(list(out.iterdir())) == 5


def test_an_image_of_a_random_program_is_its_seeds_alone(tmp_path):
    checkpoint = load_generator(script(Noisy(), tmp_path / "G.pt"), run_code=True)
    source = GeneratorSource(checkpoint, name="x", count=8)
    together = source.load(range(8), 8).images
    alone = torch.cat([source.load([i], 8).images for i in range(8)])
    assert torch.equal(together, alone) and not torch.equal(together[0], together[1])
    before = torch.get_rng_state()
    source.load([0], 8)
    assert torch.equal(before, torch.get_rng_state())


def test_a_traced_program_needs_its_width(tmp_path, cli):
    path = tmp_path / "G.pt"
    torch.jit.trace(Small(), torch.zeros(2, 16)).save(str(path))
    with pytest.raises(CheckpointError, match="give --z-dim"):
        load_generator(path, run_code=True)
    assert load_generator(path, run_code=True, z_dim=16).generator.z_dim == 16
    with pytest.raises(CheckpointError, match=r"fails for z of shape \(1, 17\)"):
        load_generator(path, run_code=True, z_dim=17)
    result = cli("generate", "--gen", path, "--run-code", "--z-dim", 16, "--seeds", "3", "--outdir",
                 tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (Flat(), {}, r"returns float32 of shape \(1, 192\)"),
        (Small(), {"z_dim": 7}, "has width 16, not 7"),
        (Conditional(0), {}, "does not say how many"),
    ],
)
def test_programs_that_are_no_generators(tmp_path, network, options, words):
    path = script(network, tmp_path / "G.pt")
    with pytest.raises((CheckpointError, UsageError), match=words):
        load_generator(path, run_code=True, **options)


def test_what_a_program_has_not(tmp_path, checkpoint):
    found = load_generator(script(Small(), tmp_path / "G.pt"), run_code=True)
    for options in ({"trunc": 0.5}, {"noise": "const"}):
        with pytest.raises(UsageError, match="neither truncation nor"):
            GeneratorSource(found, name="x", count=1, sample=SampleOptions(**options)).load([0], 8)
    with pytest.raises(UsageError, match="stores the width of its latent"):
        load_generator(checkpoint, z_dim=16)


class Sized(nn.Module):
    """Images of a side that the latent decides."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        side = int(torch.clamp(z[0, 0] * 8, 0, 64))
        return torch.zeros(z.shape[0], 3, side, side)


def test_programs_of_several_sizes(tmp_path):
    found = load_generator(script(Sized(), tmp_path / "G.pt"), run_code=True, z_dim=4).generator
    assert found.img_resolution == 4
    assert found(torch.full((2, 4), 0.5)).shape == (2, 3, 4, 4)
    with pytest.raises(CheckpointError, match=r"shapes \(3, 4, 4\) and \(3, 8, 8\)"):
        found(torch.ones(1, 4))


class Nothing(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.zeros(z.shape[0], 3, 0, 0)


def test_a_program_without_pixels(tmp_path):
    path = script(Nothing(), tmp_path / "G.pt")
    with pytest.raises(CheckpointError, match=r"\(1, 3, 0, 0\)"):
        load_generator(path, run_code=True, z_dim=4)


def test_a_damaged_program(write, tmp_path):
    path = write(Small())
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") - 500
    data[at : at + 300] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        load_generator(path, run_code=True)


# --- functions

MODULE = """
import numpy as np
print("imported")
def draw(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, 12, 8), dtype=np.uint8)
def wrong(n, seed):
    return np.zeros((n, 8, 8, 3), dtype=np.float32)
def flipped(n, seed):
    return draw(n, seed)[:, :, ::-1]
def objects(n, seed):
    return np.empty((n, 3, 8, 8), dtype=object)
def listed(n, seed):
    return draw(n, seed).tolist()
def growing(n, seed):
    return np.zeros((n, 3, 8 + seed, 8 + seed), dtype=np.uint8)
number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(MODULE)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    yield "my_model"
    sys.modules.pop("my_model", None)


def test_a_function_of_the_users_own(cli, module, reals, bank, tmp_path):
    arguments = ("rank", "--real", reals, "--gen", f"{module}:draw", "--bank", bank,
                 "--format", "json")  # fmt: skip
    first = cli(*arguments)
    assert first.code == 0, first.err
    assert "my_model is your own code; it is imported and run" in first.err
    again = cli(*arguments)
    assert json.loads(again.out.removeprefix("imported\n")) | {"created": 0} == json.loads(
        first.out.removeprefix("imported\n")
    ) | {"created": 0}
    assert "cached" in again.err
    made = cli("generate", "--gen", f"{module}:draw", "--seeds", "0-2", "--outdir", tmp_path / "o")
    assert made.code == 0 and len(list((tmp_path / "o").glob("seed*.png"))) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_model:wrong", "returned float32 .* uint8"),
        ("my_model:gone", "has no function 'gone'"),
        ("my_model:number", "has no function 'number'"),
        ("my_model:objects", r"returned object \(32, 3, 8, 8\)"),
        ("my_model:listed", "returned list"),
        ("no_model:draw", "no module 'no_model'"),
        ("my_model.py:draw", "write my_model:draw, without '.py'"),
        ("leaves:draw", "'leaves' ends the program"),
    ],
)
def test_functions_that_do_not_do(cli, module, reals, bank, name, words):
    result = cli("rank", "--real", reals, "--gen", name, "--bank", bank)
    assert result.code == 2
    assert re.search(words, result.err)
    trunc = cli("rank", "--real", reals, "--gen", "my_model:draw", "--trunc", 0.5)
    assert trunc.code == 2 and "function of your own" in trunc.err


def test_arrays_that_are_views(module):
    flipped, plain = (import_function(f"{module}:{name}") for name in ("flipped", "draw"))
    assert torch.equal(call_function(flipped, "f", 2, 1), call_function(plain, "f", 2, 1).flip(2))


def test_images_of_several_sizes(cli, module, tmp_path):
    made = cli("generate", "--gen", f"{module}:growing", "--seeds", "0-3", "--outdir", tmp_path)
    assert made.code == 2 and "images of 8 and of 11 px" in made.err


def test_a_function_through_python(reals, bank):
    calls = []

    def draw(n, seed):
        calls.append((n, seed))
        return torch.from_numpy(
            np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
        )

    ranking = probe.rank(reals, draw, bank=bank, options=probe.RankOptions(num=60))
    assert ranking.leaderboard.winner
    wanted = {f"seed {i // 32}, image {i % 32}" for i in range(60)}
    assert set(ranking.captions[60:]) == wanted
    assert calls == [(32, 0), (28, 1)]  # each batch is drawn once


def test_an_unsteady_function_is_found_out():
    rng = np.random.default_rng(0)
    source = CallableSource(
        lambda n, seed: rng.integers(0, 256, (n, 3, 2000, 2000), dtype=np.uint8), name="f", count=96
    )
    keys = source.keys([0, 40, 70])
    assert len(set(keys)) == 3
    with pytest.raises(UsageError, match="other images than before"):
        source.load([0], 8)
