"""The FastGAN network against the documented arithmetic, from tensors as files hold them."""

import numpy as np
import pytest
import torch
from generators.reference_fastgan import generate

from probe.errors import CheckpointError, UsageError
from probe.generators.networks.fastgan import ClassNorm, Generator, Noise, Norm, convert_state

TOLERANCE = 1e-4  # of the range of the output
Z = 12


@pytest.fixture(autouse=True)
def one_thread():
    """More cost these tiny networks time where processors are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(resolution=32, c_dim=0, ngf=4, lite=False):
    with torch.device("meta"):
        return Generator(Z, c_dim, resolution, 3, ngf, bool(c_dim), {"lite": lite})


# How `stored` calls the layers within a component: by their place in a sequence.
PLACES = {
    "init": {"conv": "init.0", "norm": "init.1"},
    "feat": {
        "conv1": "main.1",
        "noise1": "main.2",
        "norm1": "main.3",
        "conv2": "main.5",
        "noise2": "main.6",
        "norm2": "main.7",
    },
    "lite": {"conv1": "main.1", "norm1": "main.2"},
    "se": {"conv1": "main.1", "conv2": "main.3"},
    "to_big": {"": ""},
    "embed": {"": ""},
}


def stored(g, seed=0, linear_bias=True):
    """Return random tensors for `g` as a file would hold them: spectral norm apart."""
    rng = torch.Generator().manual_seed(seed)
    lite = g.init_kwargs["synthesis_kwargs"]["lite"]
    scale = 0.6 if lite else 1
    state = {}

    def randn(*shape):
        return torch.randn(*shape, generator=rng)

    def spectral(name, shape, dim=0):
        weight = randn(*shape)
        matrix = weight.movedim(dim, 0).reshape(shape[dim], -1)
        u = torch.nn.functional.normalize(randn(shape[dim]), dim=0)
        for _ in range(2):  # near the largest singular value, and not at it
            v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
            u = torch.nn.functional.normalize(matrix @ v, dim=0)
        state.update({f"{name}.weight_orig": weight, f"{name}.weight_u": u, f"{name}.weight_v": v})

    for path, module in g.named_modules():
        part = path.split(".")
        if len(part) < 2 or (len(part) == 2 and list(module.children())):
            continue
        component = part[1].split("_")[0] if part[1] != "to_big" else "to_big"
        places = PLACES["lite" if lite and component == "feat" else component]
        inner = places.get(".".join(part[2:]))
        if inner is None:
            continue
        name = ".".join(filter(None, [*part[:2], inner]))
        if isinstance(module, torch.nn.Embedding):
            state[f"{name}.weight"] = randn(*module.weight.shape)
        elif isinstance(module, Norm | ClassNorm):
            kind = "running" if isinstance(module, Norm) else "stored"
            channels = len(module.get_buffer(f"{kind}_mean"))
            state[f"{name}.{kind}_mean"] = randn(channels) * 0.1
            state[f"{name}.{kind}_var"] = (torch.rand(channels, generator=rng) * 0.3 + 0.1) * scale
            if isinstance(module, Norm):
                state[f"{name}.weight"] = 1 + 0.3 * randn(channels)
                state[f"{name}.bias"] = 0.3 * randn(channels)
                state[f"{name}.num_batches_tracked"] = torch.tensor(7)
            else:
                for linear in ("gain", "bias"):
                    spectral(f"{name}.{linear}", module.get_submodule(linear).weight.shape)
                    if linear_bias:
                        state[f"{name}.{linear}.bias"] = 0.3 * randn(channels)
        elif isinstance(module, Noise):
            state[f"{name}.weight"] = randn(1) * 0.2
        else:
            spectral(name, module.weight.shape, dim=1 if component == "init" else 0)
            if module.bias is not None:
                state[f"{name}.bias"] = randn(len(module.bias)) * 0.3
    return state


def loaded(g, state):
    g.load_state_dict(convert_state(state), assign=True, strict=True)
    return g.eval().requires_grad_(False)


def const_map(resolution, index):
    stream = torch.Generator().manual_seed(2 * resolution + index)
    return torch.randn(1, resolution, resolution, generator=stream).double().numpy()


def difference(resolution=32, batch=2, c=None, lite=False, noise_mode="const", **options):
    linear_bias = options.pop("linear_bias", True)
    g = network(resolution, lite=lite, **options)
    state = stored(g, seed=resolution, linear_bias=linear_bias)
    g = loaded(g, state)
    z = np.random.RandomState(batch).randn(batch, Z)
    one_hot = None if c is None else torch.eye(g.c_dim)[c]
    found = g(torch.from_numpy(z).float(), one_hot, noise_mode=noise_mode)
    assert found.dtype == torch.float32 and found.shape == (batch, 3, resolution, resolution)
    noise = const_map if noise_mode == "const" else None
    expected = generate(state, z, resolution, c, lite, noise)
    assert expected.std(axis=(0, 2, 3)).min() > 0.02  # a flat image would agree with anything
    return np.abs(found.double().numpy() - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("noise_mode", ["const", "none"])
@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_equals_the_formulas(resolution, lite, noise_mode):
    assert difference(resolution, lite=lite, noise_mode=noise_mode) < TOLERANCE


@pytest.mark.parametrize("lite", [False, True])
def test_large_maps_are_excited_by_small_ones(lite):
    assert difference(256, batch=1, lite=lite) < TOLERANCE


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("c", range(4))
def test_every_class_of_a_conditional_network(c, lite):
    assert difference(16, c=[c, 3 - c], c_dim=4, lite=lite) < TOLERANCE
    assert difference(64, batch=1, c=[c], c_dim=4, lite=lite, linear_bias=False) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_batch_size_changes_nothing(batch, c_dim):
    c = [i % 3 for i in range(batch)] if c_dim else None
    assert difference(batch=batch, c=c, c_dim=c_dim) < TOLERANCE


def test_noise_modes_differ_and_depend_on_the_sample_alone():
    g = network()
    g, z = loaded(g, stored(g)), torch.randn(3, Z)
    const, none = g(z, noise_mode="const"), g(z, noise_mode="none")
    assert torch.equal(const, g(z, noise_mode="const"))
    assert (const - none).abs().max() > 0.01
    assert (g(z) - g(z)).abs().max() > 0.01

    together = g(z, noise_keys=torch.tensor([4, 5, 6]))
    alone = g(z[1:2], noise_keys=torch.tensor([5]))
    assert (together[1:2] - alone).abs().max() < 1e-5
    assert (together[1:2] - g(z[1:2], noise_keys=torch.tensor([6]))).abs().max() > 0.01


def test_lite_has_no_noise():
    g = network(lite=True)
    g, z = loaded(g, stored(g)), torch.randn(1, Z)
    assert torch.equal(g(z), g(z, noise_mode="none"))


CONV = ["weight"]
NORM = ["weight", "bias", "running_mean", "running_var"]
LINEARS = ["gain.weight", "gain.bias", "bias.weight", "bias.bias"]
CLASS_NORM = [*LINEARS, "stored_mean", "stored_var"]


def names(norm, lite):
    feat = {"conv1": CONV, "norm1": norm}
    if not lite:
        feat |= {"noise1": CONV, "conv2": CONV, "noise2": CONV, "norm2": norm}
    layers = {f"feat_{r}": feat for r in (8, 16, 32, 64, 128, 256)}
    layers |= {f"se_{r}": {"conv1": CONV, "conv2": CONV} for r in (64, 128, 256)}
    layers["init"] = {"conv": CONV, "norm": NORM}
    expected = {"synthesis.to_big.weight", "synthesis.to_big.bias"}
    for component, inner in layers.items():
        for layer, leaves in inner.items():
            expected |= {f"synthesis.{component}.{layer}.{leaf}" for leaf in leaves}
    return expected


@pytest.mark.parametrize("lite", [False, True])
def test_names(lite):
    assert network(32, lite=lite).state_dict().keys() == names(NORM, lite)
    conditional = network(32, c_dim=2, lite=lite).state_dict().keys()
    assert conditional == names(CLASS_NORM, lite) | {"synthesis.embed.weight"}


def test_larger_networks_have_more_layers():
    small, large = network(256, ngf=8).state_dict(), network(1024, ngf=8).state_dict()
    added = {name.split(".")[1] for name in large.keys() - small.keys()}
    assert added == {"feat_512", "feat_1024", "se_512"}
    shapes = {f"synthesis.{n}": tuple(t.shape) for n, t in network().synthesis.state_dict().items()}
    assert shapes["synthesis.init.conv.weight"] == (Z, 128, 4, 4)
    assert shapes["synthesis.feat_8.conv1.weight"] == (64, 64, 3, 3)
    assert shapes["synthesis.feat_8.conv2.weight"] == (64, 32, 3, 3)
    assert shapes["synthesis.se_64.conv1.weight"] == (8, 64, 4, 4)
    assert shapes["synthesis.se_64.conv2.weight"] == (8, 8, 1, 1)
    assert shapes["synthesis.to_big.weight"] == (3, 8, 3, 3)


def test_512_pixels():
    g = network(512, lite=True)
    images = loaded(g, stored(g))(torch.randn(1, Z))
    assert images.shape == (1, 3, 512, 512) and images.std() > 0


@pytest.mark.parametrize("c_dim", [0, 2])
def test_converted_states_return_as_they_are(c_dim):
    g = network(c_dim=c_dim)
    once = convert_state(stored(g))
    ordered = dict(sorted(once.items()))  # as safetensors files list them
    for state in (once, ordered):
        twice = convert_state(state)
        assert twice.keys() == g.state_dict().keys()
        assert all(torch.equal(twice[name], tensor) for name, tensor in once.items())


def test_names_within_a_component_mean_nothing():
    g = network(c_dim=2)
    state = stored(g)
    renamed = {
        name.removeprefix("synthesis.").replace(".main.", ".body.block_"): tensor
        for name, tensor in state.items()
    }
    expected, found = convert_state(state), convert_state(renamed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_unknown_tensors_keep_their_names():
    state = {
        "synthesis.other.weight": torch.ones(2),
        "synthesis.feat_8.main.1.scale": torch.ones(1),
    }
    assert convert_state(state) == state
    g = network()
    with pytest.raises(RuntimeError, match=r"feat_8\.conv3"):
        extra = {"synthesis.feat_8.main.9.weight": torch.ones(1, 1, 3, 3)}
        loaded(g, stored(g) | extra)


def test_no_bias_is_made_for_a_gain_without_numbers():
    """Its shape, which no storage bounds, would be that of the zeros."""
    state = {"synthesis.feat_8.1.stored_mean": torch.ones(1),
             "synthesis.feat_8.1.gain.weight": torch.empty(2**20, 0)}  # fmt: skip
    assert not any(name.endswith("bias") for name in convert_state(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"synthesis.to_big.weight_u": None}, "incomplete"),
        ({"synthesis.to_big.weight_orig": None}, "incomplete"),
        ({"synthesis.to_big.weight": torch.ones(3, 8, 3, 3)}, "incomplete"),
        ({"synthesis.to_big.weight_v": torch.ones(5)}, "does not fit"),
        ({"synthesis.to_big.weight_orig": torch.ones(())}, "does not fit"),
        ({"to_big.bias": torch.ones(3)}, "twice"),
    ],
)
def test_damaged_states(change, message):
    state = stored(network()) | change
    with pytest.raises(CheckpointError, match=message):
        convert_state({name: tensor for name, tensor in state.items() if tensor is not None})


def test_arguments():
    with torch.device("meta"):
        g = Generator(c_dim=5, ngf=16)
        assert g.init_kwargs == {
            "z_dim": 256,
            "c_dim": 5,
            "img_resolution": 256,
            "img_channels": 3,
            "ngf": 16,
            "cond": False,
            "synthesis_kwargs": {},
        }
        assert (g.z_dim, g.c_dim, g.img_resolution, g.img_channels) == (256, 0, 256, 3)
        again = Generator(**g.init_kwargs)
        assert again.state_dict().keys() == g.state_dict().keys()
        for unknown in ({"w_dim": 3}, {"synthesis_kwargs": {"fancy": 1}}):
            with pytest.raises(TypeError):
                Generator(**unknown)
        for wrong in ({"img_resolution": 48}, {"img_resolution": 4}, {"cond": True}, {"ngf": 1}):
            with pytest.raises(UsageError):
                Generator(**wrong)


def test_no_truncation_and_no_missing_classes():
    g = network(8, c_dim=2)
    g = loaded(g, stored(g))
    with pytest.raises(UsageError, match="truncate"):
        g(torch.randn(1, Z), torch.eye(2)[:1], truncation_psi=0.7)
    with pytest.raises(UsageError, match="classes"):
        g(torch.randn(1, Z))
