"""rosinality's StyleGAN2 and the files of those who build on it, against its own arithmetic."""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from generators.reference_rosinality import (
    discriminator,
    generate,
    judge,
    kernel,
    mapped,
    state_dict,
)
from inputs import write_images
from safetensors.torch import save_file

from probe.errors import CheckpointError
from probe.generators.files.formats import load_generator
from probe.training.inherit import inherit, read_discriminator

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def state():
    return state_dict()


@pytest.fixture(scope="module")
def average(state):
    return torch.from_numpy(mapped(state, np.random.default_rng(0).normal(size=(500, 10)))).mean(0)


def latents(width=10):
    return np.random.RandomState(0).randn(3, width)


def difference(path: Path, state, psi=1.0, average=None):
    """Return by how much images of a file differ from those of a state dict, of their range."""
    z = latents(state["style.1.weight"].shape[1])
    with torch.no_grad():
        found = load_generator(path).generator(
            torch.from_numpy(z).float(), truncation_psi=psi, noise_mode="const"
        )
    expected = generate(state, z, psi, average)
    return np.abs(found.double().numpy() - expected).max() / np.abs(expected).max()


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def trained(state, average):
    """What their train.py saves, optimizers and all."""
    adam = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}},
            "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99), "params": [0, 1]}]}  # fmt: skip
    return {
        "g": state_dict(seed=5), "d": discriminator(), "g_ema": state, "g_optim": adam,
        "d_optim": adam, "args": argparse.Namespace(path="lmdb", iter=800_000), "ada_aug_p": 0.2,
    }  # fmt: skip


def pixel2style2pixel(state, average):
    """What pSp saves: the generator is the decoder, the average is repeated for each layer."""
    return {
        "state_dict": {
            **under("encoder.", {"input_layer.0.weight": torch.ones(3, 3)}),
            **under("decoder.", state),
        },
        "opts": {"device": "cuda:0", "output_size": 32, "lr": 1e-4, "resize": True},
        "latent_avg": average.repeat(8, 1),
    }


FILES = {
    "converted": (lambda s, a: {"g_ema": s, "latent_avg": a}, "g_ema", []),
    "trained": (
        trained, "g_ema", ["g", "d", "g_optim", "d_optim", "args", "ada_aug_p"],
    ),
    "pSp": (pixel2style2pixel, "state_dict.decoder", ["opts", "state_dict.encoder"]),
    "StyleGAN-NADA": (lambda s, a: {"g_ema": s, "g_optim": {"state": {}}}, "g_ema", ["g_optim"]),
    "JoJoGAN": (lambda s, a: {"g": s, "g_optim": {"state": {}}}, "g", ["g_optim"]),
    "a state dict": (lambda s, a: s, "", []),
    "DataParallel": (lambda s, a: {"g_ema": under("module.", s)}, "g_ema.module", []),
    "Lightning": (
        lambda s, a: {"pytorch-lightning_version": "2.0", "state_dict": {
            **under("discriminator.", discriminator()), **under("G.", state_dict(seed=7)),
            **under("G_ema.", s)}},
        "state_dict.G_ema", ["pytorch-lightning_version", "state_dict.discriminator",
                             "state_dict.G"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_as_programs_write_them(tmp_path, state, average, kind):
    write, place, ignored = FILES[kind]
    torch.save(write(state, average.float()), tmp_path / "G.pt")
    found = load_generator(tmp_path / "G.pt")
    assert (found.architecture, found.place, found.ignored) == ("stylegan2", place, ignored)
    assert difference(tmp_path / "G.pt", state) < TOLERANCE


@pytest.mark.parametrize("kind", ["converted", "pSp"])
def test_truncation_leads_to_the_average_beside_the_generator(tmp_path, state, average, kind):
    torch.save(FILES[kind][0](state, average.float()), tmp_path / "G.pt")
    assert difference(tmp_path / "G.pt", state, 0.7, average) < TOLERANCE


def test_an_average_that_is_missing_is_that_of_many_latents(tmp_path, state):
    torch.save({"g_ema": state}, tmp_path / "G.pt")
    found = load_generator(tmp_path / "G.pt").generator.mapping.w_avg
    again = load_generator(tmp_path / "G.pt").generator.mapping.w_avg
    w = mapped(state, np.random.default_rng(1).normal(size=(20_000, 10)))
    error = w.std(axis=0) / np.sqrt(4096)
    assert torch.equal(found, again)
    assert (np.abs(found.numpy() - w.mean(axis=0)) < 5 * error).all()
    torch.save({"g_ema": state, "latent_avg": torch.randn(8, 10)}, tmp_path / "rows.pt")
    assert torch.equal(load_generator(tmp_path / "rows.pt").generator.mapping.w_avg, found)


@pytest.mark.parametrize(
    ("size", "layers", "taps"), [(4, 1, (1, 3, 3, 1)), (16, 8, (1, 2, 1)), (64, 2, (1, 3, 3, 1))]
)
def test_other_sizes_depths_and_filters(tmp_path, size, layers, taps):
    widths = {4: 8, 8: 8, 16: 8, 32: 8, 64: 4}
    state = state_dict(size, layers=layers, taps=taps, widths=widths)
    torch.save({"g_ema": state}, tmp_path / "G.pt")
    found = load_generator(tmp_path / "G.pt")
    assert found.generator.img_resolution == size and found.generator.mapping.num_layers == layers
    assert difference(tmp_path / "G.pt", state) < TOLERANCE


@pytest.mark.parametrize("multiplier", [1, 2])
def test_the_widths_of_their_own_networks(tmp_path, multiplier):
    widths = {4: 512, 8: 512, 16: 512, 32: 512} | {
        r: 16384 // r * multiplier for r in (64, 128, 256)
    }
    state = state_dict(256, 512, 8, widths)
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "G.safetensors")
    init = load_generator(tmp_path / "G.safetensors").init
    assert (init["z_dim"], init["w_dim"], init["img_resolution"]) == (512, 512, 256)
    assert init["synthesis_kwargs"]["channel_base"] == 16384 * multiplier
    assert init["synthesis_kwargs"]["channel_max"] == 512


def test_what_early_files_leave_out_is_filled_in(tmp_path, state):
    """Some have no constant noise, some no kernels: both were made when the network was."""
    early = {n: t for n, t in state.items() if "noises" not in n and "kernel" not in n}
    torch.save({"g_ema": early}, tmp_path / "early.pt")
    first, second = (load_generator(tmp_path / "early.pt").generator for _ in range(2))
    z = torch.from_numpy(latents()).float()
    assert torch.equal(first(z, noise_mode="const"), second(z, noise_mode="const"))
    silent = state | {n: torch.zeros_like(t) for n, t in state.items() if "noises" in n}
    expected = generate(silent, latents())
    found = first(z, noise_mode="none").double().numpy()
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"to_rgbs.0.iwt.ll": torch.ones(2, 2)}, "unknown tensor 'to_rgbs.0.iwt.ll'"),
        ({"convs.1.conv.weight": None}, "lacks tensor 'synthesis.b8.conv1.weight'"),
        ({"style.1.weight": None}, "has 0 mapping layers"),
        ({"input.input": torch.ones(1, 12, 16, 16)}, r"shape \(12, 16, 16\)"),
        ({"conv1.activate.bias": torch.full((12,), torch.nan)}, "NaN or infinite"),
        ({"convs.0.conv.weight": torch.ones(2, 12, 12, 3, 3)}, "cannot be built"),
        ({n: kernel((1, 2, 4, 1), 4) for n in state_dict() if "kernel" in n}, "not symmetric"),
        ({"convs.3.conv.weight": torch.ones(1, 13, 8, 3, 3)}, "channels that no channel_base"),
    ],
)
def test_networks_that_only_look_like_it(tmp_path, state, change, words):
    odd = {n: t for n, t in (state | change).items() if t is not None}
    torch.save({"g_ema": odd}, tmp_path / "G.pt")
    with pytest.raises(CheckpointError, match=words):
        load_generator(tmp_path / "G.pt")


def module_of(state, modules):
    """Return a module tree of their classes, by name alone, that has a state dict's tensors."""
    root = modules["Generator"]()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        at = root
        for word in path:
            if word not in at._modules:
                at.add_module(word, modules["StyledConv"]())
            at = at._modules[word]
        at.register_buffer(leaf, tensor)
    return root


def test_a_whole_module(tmp_path, state, monkeypatch):
    """`torch.save(g_ema)`: their classes are names, and no code of theirs is there."""
    file = types.ModuleType("model")
    for name in ("Generator", "StyledConv"):
        setattr(file, name, type(name, (torch.nn.Module,), {"__module__": "model"}))
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "model", file)
        torch.save(module_of(state, vars(file)), tmp_path / "G.pt")
        torch.save(torch.nn.DataParallel(module_of(state, vars(file))), tmp_path / "wrapped.pt")
    for name in ("G.pt", "wrapped.pt"):
        assert difference(tmp_path / name, state) < TOLERANCE


def test_the_discriminator_comes_along(tmp_path, state):
    torch.save(trained(state, None), tmp_path / "G.pt")
    network = read_discriminator(tmp_path / "G.pt")
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32))
    with torch.no_grad():
        found = network(torch.from_numpy(images).float()).double().numpy()
    expected = judge(discriminator(), images)
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
    networks = inherit(tmp_path / "G.pt", resolution=32, c_dim=0)
    raw = state_dict(seed=5)["convs.0.conv.weight"][0]
    assert torch.equal(networks.generator.synthesis.b8.conv0.weight, raw)
    assert torch.equal(networks.average.synthesis.b8.conv0.weight, state["convs.0.conv.weight"][0])
    other = discriminator() | {"convs.1.skip.0.kernel": kernel((1, 2, 2, 1))}
    torch.save({"g_ema": state, "d": other}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="low-pass"):
        read_discriminator(tmp_path / "other.pt")


def test_it_is_inspected_ranked_and_drawn(cli, bank, tmp_path, state):
    torch.save(trained(state, None), tmp_path / "G.pt")
    inspected = cli("inspect", tmp_path / "G.pt")
    assert inspected.code == 0 and "StyleGAN2" in inspected.out and "g_ema" in inspected.out
    reals = write_images(tmp_path / "some", 40, seed=3)
    ranked = cli("rank", "--real", reals, "--gen", tmp_path / "G.pt", "--bank", bank)
    assert ranked.code == 0, ranked.err
    made = cli("generate", "--gen", tmp_path / "G.pt", "--seeds", "0-2", "--trunc", "0.7",
               "--outdir", tmp_path / "out")  # fmt: skip
    assert made.code == 0 and len(list((tmp_path / "out").iterdir())) == 3
