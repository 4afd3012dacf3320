"""The network against the documented arithmetic, and its files against each other."""

import numpy as np
import pytest
import torch
from generators.pickles import channels_last, stylegan2_pickle
from generators.reference import generate
from safetensors import safe_open

from probe.generators.files.formats import load_generator
from probe.generators.files.snapshot import save_snapshot
from probe.generators.networks.stylegan2 import Generator

TOLERANCE = 1e-4 * 2  # of the output range [-1, 1]


def network(c_dim=0, resolution=16, channels=8, **synthesis):
    torch.manual_seed(c_dim + resolution)
    options = {"channel_base": 16 * channels, "channel_max": channels, **synthesis}
    g = Generator(12, c_dim, 10, resolution, 3, {"num_layers": 3}, options)
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        g.mapping.w_avg.copy_(torch.randn(10) * 0.5)
    return g.eval().requires_grad_(False)


def difference(g, batch=3, c=None, **options):
    z = np.random.RandomState(0).randn(batch, 12)
    found = g(
        torch.from_numpy(z).float(),
        None if c is None else torch.from_numpy(c).float(),
        truncation_psi=options.get("psi", 1.0),
        truncation_cutoff=options.get("cutoff"),
        noise_mode="const",
    ).double()
    expected = generate(g, z, c, **options)
    assert expected.std() > 0.05  # a flat image would agree with anything
    return np.abs(found.numpy() - expected).max()


@pytest.mark.parametrize("options", [{}, {"psi": 0.7}, {"psi": 0.7, "cutoff": 3}])
@pytest.mark.parametrize("resolution", [16, 32])
def test_equals_the_formulas(resolution, options):
    assert difference(network(resolution=resolution), **options) < TOLERANCE


@pytest.mark.parametrize("architecture", ["orig", "resnet"])
def test_other_architectures(architecture):
    assert difference(network(architecture=architecture)) < TOLERANCE


def test_clamp_and_other_filters():
    assert difference(network(conv_clamp=0.8)) < TOLERANCE
    assert difference(network(resample_filter=[1, 2, 2, 1])) < TOLERANCE


@pytest.mark.parametrize("c", range(4))
def test_every_class_of_a_conditional_network(c):
    assert difference(network(c_dim=4), batch=2, c=np.eye(4)[[c, c]], psi=0.7) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 8])
def test_batch_size_changes_nothing(batch):
    assert difference(network(channels=4), batch=batch) < TOLERANCE


def test_noise_modes_differ_and_const_repeats():
    g, z = network(), torch.randn(2, 12)
    const, none = g(z, noise_mode="const"), g(z, noise_mode="none")
    assert torch.equal(const, g(z, noise_mode="const"))
    assert (const - none).abs().max() > 0.01
    assert (g(z) - g(z)).abs().max() > 0.01


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("positional", [False, True])
def test_pickle_gives_the_same_network(tmp_path, c_dim, protocol, positional):
    g = network(c_dim)
    path = tmp_path / "network.pkl"
    path.write_bytes(stylegan2_pickle(g, protocol=protocol, positional=positional))
    found = load_generator(path)
    assert found.architecture == "stylegan2" and found.generator.c_dim == c_dim
    assert found.ignored == ["G", "D", "augment_pipe", "training_set_kwargs"]
    assert "torch_utils.persistence._reconstruct_persistent_obj" in found.globals
    state = found.generator.state_dict()
    assert state.keys() == g.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in g.state_dict().items())
    assert not any(p.requires_grad for p in found.generator.parameters())


def test_tensors_in_any_memory_layout(tmp_path):
    g = network()
    expected = {k: v.clone() for k, v in g.state_dict().items()}
    path = tmp_path / "network.pkl"
    path.write_bytes(stylegan2_pickle(channels_last(g)))
    found = load_generator(path).generator.state_dict()
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_half_precision_pickles_become_float32(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(stylegan2_pickle(network().half()))
    assert all(p.dtype == torch.float32 for p in load_generator(path).generator.parameters())


def test_snapshot_says_what_it_is_to_other_programs(tmp_path):
    g, contents = network(), set()
    for i in range(8):  # safetensors orders its metadata at random
        path = tmp_path / f"{i}.safetensors"
        save_snapshot(path, g, metadata={"kimg": 12.5, "name": 'Ünïcode \x01 \x7f "/\\'})
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, framework="pt") as f:
        found = f.metadata()
    assert found["format"] == "pt" and found["modelspec.architecture"] == "stylegan2"
    assert found["modelspec.resolution"] == f"{g.img_resolution}x{g.img_resolution}"
    assert found["modelspec.title"].endswith(f"{g.img_resolution} px, after 12.5 kimg")
    assert load_generator(path).kimg == 12.5


def test_snapshot_returns_the_same_bits(tmp_path):
    g = network(c_dim=2)
    save_snapshot(tmp_path / "a.safetensors", g, metadata={"kimg": 12.5, "seed": 3})
    found = load_generator(tmp_path / "a.safetensors")
    assert found.kimg == 12.5 and found.init == g.init_kwargs
    state = found.generator.state_dict()
    assert all(torch.equal(state[k], v) for k, v in g.state_dict().items())
    save_snapshot(tmp_path / "half.safetensors", g, metadata={}, dtype=torch.float16)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "a")]
    assert sizes[0] < 0.75 * sizes[1]
    assert load_generator(tmp_path / "half.safetensors").generator.init_kwargs == g.init_kwargs
