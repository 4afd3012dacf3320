"""The R3GAN network against the documented arithmetic, and how files' tensors become its own."""

import numpy as np
import pytest
import torch
from generators.reference_r3gan import generate

from probe.errors import CheckpointError, UsageError
from probe.generators.networks.r3gan import Generator, convert_state

TOLERANCE = 1e-4  # of the range of the output
Z = 6
ARGUMENTS = {
    "NoiseDimension": Z,
    "WidthPerStage": [12, 12, 8, 4, 4, 4, 2],
    "CardinalityPerStage": [4, 3, 8, 2, 1, 4, 2],
    "BlocksPerStage": [2, 1, 3, 1, 1, 1, 1],
    "ExpansionFactor": 2,
}


@pytest.fixture(autouse=True)
def one_thread():
    """More cost these tiny networks time where processors are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(stages=4, classes=0, **options):
    init = {n: v[:stages] if isinstance(v, list) else v for n, v in ARGUMENTS.items()}
    if classes:
        init |= {"ConditionDimension": classes, "ConditionEmbeddingDimension": 5}
    return init | options


def network(stages=4, classes=0, **options):
    torch.manual_seed(stages + classes)
    g = Generator(**arguments(stages, classes, **options))
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            if name.endswith("Bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return g.eval().requires_grad_(False)


def difference(g, batch=2, c=None):
    z = np.random.RandomState(batch).randn(batch, Z)
    found = g(torch.from_numpy(z).float(), None if c is None else torch.from_numpy(c).float())
    side = g.img_resolution
    assert found.dtype == torch.float32 and found.shape == (batch, 3, side, side)
    expected = generate(g.state_dict(), z, g.init_kwargs, c)
    assert expected.std(axis=(0, 2, 3)).min() > 0.02  # a flat image would agree with anything
    return np.abs(found.double().numpy() - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
def test_equals_the_formulas(stages):
    g = network(stages)
    assert g.img_resolution == 4 * 2 ** (stages - 1)
    assert difference(g) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        {"ResamplingFilter": [1, 4, 6, 4, 1]},
        {"ResamplingFilter": [1, 2, 4]},  # asymmetric: tells a convolution from a correlation
        {"ResamplingFilter": [1]},
        {"KernelSize": 5},
        {"ExpansionFactor": 1},
        {"FP16Stages": [2, 3]},
    ],
)
def test_other_arguments(options):
    if options.get("ExpansionFactor") == 1:
        options = options | {"CardinalityPerStage": [4, 3, 2, 1]}
    assert difference(network(**options)) < TOLERANCE


@pytest.mark.parametrize("c", range(4))
def test_every_class_of_a_conditional_network(c):
    assert difference(network(classes=4), c=np.eye(4)[[c, 3 - c]]) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("classes", [0, 3])
def test_batch_size_changes_nothing(batch, classes):
    c = np.eye(3)[np.arange(batch) % 3] if classes else None
    assert difference(network(classes=classes), batch, c) < TOLERANCE


def test_classes_differ():
    g, z = network(classes=3), torch.randn(1, Z)
    images = g(z.expand(3, -1), torch.eye(3))
    assert (images[0] - images[1]).abs().max() > 0.01
    assert (images[1] - images[2]).abs().max() > 0.01


def test_256_pixels():
    g = network(7)
    images = g(torch.randn(1, Z))
    assert images.shape == (1, 3, 256, 256) and images.std() > 0


def test_noise_is_ignored():
    g, z = network(2), torch.randn(1, Z)
    assert torch.equal(g(z, noise_mode="const"), g(z, noise_keys=torch.tensor([5])))


BLOCK = [
    "LinearLayer1.Layer.weight",
    "NonLinearity1.Bias",
    "LinearLayer2.Layer.weight",
    "NonLinearity2.Bias",
    "LinearLayer3.Layer.weight",
]


def test_names():
    expected = {
        "Model.AggregationLayer.Layer.weight": (3, 8, 1, 1),
        "Model.EmbeddingLayer.weight": (5, 2),
        "Model.MainLayers.0.Layers.0.Basis": (12, 4, 4),
        "Model.MainLayers.0.Layers.0.LinearLayer.weight": (12, Z + 5),
        "Model.MainLayers.1.Layers.0.Resampler.Kernel": (4, 4),
        "Model.MainLayers.2.Layers.0.Resampler.Kernel": (4, 4),
        "Model.MainLayers.2.Layers.0.LinearLayer.Layer.weight": (8, 12, 1, 1),
    }
    for s, (width, groups, blocks) in enumerate([(12, 4, 2), (12, 3, 1), (8, 8, 3)]):
        wide = 2 * width
        convs = [(wide, width, 1, 1), (wide,), (wide, wide // groups, 3, 3), (wide,)]
        for b in range(1, blocks + 1):
            name = f"Model.MainLayers.{s}.Layers.{b}."
            expected |= {name + leaf: shape for leaf, shape in zip(BLOCK, convs)}
            expected[name + BLOCK[-1]] = (width, wide, 1, 1)
    state = network(3, 2).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("filter", [[1, 2, 1], [1, 3, 7, 3, 1]])
def test_converted_states_return_as_they_are(filter):
    state = network(classes=2, ResamplingFilter=filter).state_dict()
    assert equal(convert_state(state), state)
    assert equal(convert_state(dict(sorted(state.items()))), state)


@pytest.mark.parametrize("layer", ["Layers.3.Projection.Layer.weight", "Entry.weight"])
@pytest.mark.parametrize("kernel", ["gain", "axes", "line"])
def test_transitions_by_what_they_hold(layer, kernel):
    state = dict(network(3).state_dict())
    file = {}
    for name, tensor in state.items():
        if name.endswith("Kernel"):
            line = torch.tensor([1.0, 3, 3, 1])
            tensor = {"gain": tensor * 4, "axes": tensor[None, None], "line": line}[kernel]
        if name.startswith("Model.MainLayers.2."):  # a transition after the blocks
            inner = name.removeprefix("Model.MainLayers.2.Layers.")
            number = int(inner[0])
            if inner == "0.LinearLayer.Layer.weight":
                name = f"Model.MainLayers.2.{layer}"
            else:
                name = f"Model.MainLayers.2.Layers.{number - 1 if number else 3}{inner[1:]}"
        file[name] = tensor
    assert equal(convert_state(file), state)


def test_unknown_and_double_tensors():
    state = dict(network(2).state_dict())
    other = {"Model.Other.weight": torch.ones(1), "Model.MainLayers.0.Layers.0.Odd": torch.ones(1)}
    assert equal(convert_state(state | other), state | other)
    for taps in (65, 4096, 100_000):  # no line of so many is made a square
        big = {"Model.MainLayers.1.Layers.0.Resampler.Kernel": torch.ones(taps)}
        assert equal(convert_state(state | big), state | big)
    endless = {f"Model.MainLayers.0.Layers.{'9' * 5000}.Bias": torch.ones(1)}
    assert len(convert_state(state | endless)) == len(state) + 1
    with pytest.raises(CheckpointError, match="twice"):
        convert_state(state | {"Model.MainLayers.0.Layers.0.Other.Basis": torch.ones(12, 4, 4)})


def test_arguments():
    with torch.device("meta"):
        g = Generator(**arguments(3, c_dim=4, ConditionEmbeddingDimension=5, img_resolution=16))
        assert (g.z_dim, g.c_dim, g.img_resolution, g.img_channels) == (Z, 4, 16, 3)
        again = Generator(**g.init_kwargs)
        assert again.init_kwargs == g.init_kwargs
        assert again.state_dict().keys() == g.state_dict().keys()
        with pytest.raises(TypeError):
            Generator(**arguments(fancy=1))
        assert Generator(**arguments(img_channels=1)).img_channels == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"img_resolution": 64},
        {"KernelSize": 2},
        {"ResamplingFilter": [1, 1]},
        {"ResamplingFilter": [1, 0, -1]},
        {"ResamplingFilter": [1] * 101},
        {"c_dim": 4},
        {"c_dim": 4, "ConditionDimension": 3, "ConditionEmbeddingDimension": 2},
        {"WidthPerStage": []},
        {"WidthPerStage": "1234"},
        {"WidthPerStage": [8, 8, 8]},
        {"WidthPerStage": [8, 8, 8, 10**7]},
        {"BlocksPerStage": [1, 1, 1, 10**9]},
        {"CardinalityPerStage": [4, 3, 8, 0]},
        {"CardinalityPerStage": [4, 3, 8, 5]},
        {"ExpansionFactor": float("nan")},
        {"ExpansionFactor": 1.01},
    ],
)
def test_arguments_that_contradict_each_other(wrong):
    with pytest.raises(UsageError), torch.device("meta"):
        Generator(**arguments(**wrong))


def test_no_truncation_and_no_missing_classes():
    g = network(2, classes=2)
    with pytest.raises(UsageError, match="truncate"):
        g(torch.randn(1, Z), torch.eye(2)[:1], truncation_psi=0.7)
    with pytest.raises(UsageError, match="classes"):
        g(torch.randn(1, Z))
