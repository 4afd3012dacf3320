"""The StyleGAN3 network against the documented arithmetic."""

import numpy as np
import pytest
import torch
from generators.reference3 import DEFAULTS, SCHEDULE, filters, generate, schedule

from probe.errors import UsageError
from probe.generators.networks.signals import design, upsample
from probe.generators.networks.stylegan3 import Generator, Synthesis

TOLERANCE = 1e-3  # of the output range
T = {}
R = {"conv_kernel": 1, "use_radial_filters": True}
CONFIGS = pytest.mark.parametrize("config", [T, R], ids=["T", "R"])


def network(config=T, c_dim=0, resolution=16, **synthesis):
    torch.manual_seed(c_dim + resolution)
    options = {
        "channel_base": 8 * resolution,
        "channel_max": 10,
        "num_layers": 6,
        "output_scale": 1.0,
        **config,
        **synthesis,
    }
    g = Generator(12, c_dim, 10, resolution, 3, {"embed_features": 7}, **options)
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        g.synthesis.input.affine.weight.normal_(std=0.3)
        g.mapping.w_avg.copy_(torch.randn(10) * 0.5)
        for name, buffer in g.named_buffers():
            if name.endswith("magnitude_ema"):
                buffer.copy_(torch.rand([]) * 2 + 0.2)
        turn, move = torch.tensor([[0.9, -0.5], [0.4, 1.1]]), torch.tensor([0.2, -0.1])
        g.synthesis.input.transform[:2, :2] = turn
        g.synthesis.input.transform[:2, 2] = move
    return g.eval().requires_grad_(False)


def difference(g, batch=2, c=None, **options):
    """The largest difference, of the range of the reference's values."""
    z = np.random.RandomState(0).randn(batch, g.z_dim)
    found = g(
        torch.from_numpy(z).float(),
        None if c is None else torch.from_numpy(c).float(),
        truncation_psi=options.get("psi", 1.0),
        truncation_cutoff=options.get("cutoff"),
    )
    expected = generate(g, z, c, **options)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert expected.std() > 0.02  # a flat image would agree with anything
    return np.abs(found.double().numpy() - expected).max() / np.ptp(expected)


@CONFIGS
@pytest.mark.parametrize("options", [{}, {"psi": 0.7}, {"psi": 0.7, "cutoff": 3}])
@pytest.mark.parametrize("resolution", [16, 32])
def test_equals_the_formulas(config, resolution, options):
    assert difference(network(config, resolution=resolution), **options) < TOLERANCE


@CONFIGS
def test_equals_the_formulas_at_64_pixels(config):
    g = network(config, resolution=64, channel_base=192, num_layers=8)
    assert difference(g, batch=1, psi=0.7) < TOLERANCE


@pytest.mark.parametrize("c", range(4))
def test_every_class_of_a_conditional_network(c):
    assert difference(network(c_dim=4), c=np.eye(4)[[c, c]], psi=0.7) < TOLERANCE


@CONFIGS
@pytest.mark.parametrize("batch", [1, 8])
def test_batch_size_changes_nothing(config, batch):
    assert difference(network(config), batch=batch) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        {"conv_clamp": 0.4},
        {"conv_clamp": None},
        {"num_critical": 0},
        {"num_critical": 3, "margin_size": 4},
        {"filter_size": 4},
        {"filter_size": 5, "lrelu_upsampling": 3, "use_radial_filters": True},
        {"lrelu_upsampling": 1},
        {"conv_kernel": 5, "output_scale": 0.5},
        {"first_cutoff": 3, "first_stopband": 5, "last_stopband_rel": 1.4},
    ],
    ids=str,
)
def test_other_options(options):
    assert difference(network(resolution=32, **options), batch=1) < TOLERANCE


def test_one_filter_per_piece_or_all_at_once(monkeypatch):
    g, z = network(channel_max=40, channel_base=10**4), torch.randn(2, 12)
    whole = g(z)
    monkeypatch.setattr("probe.generators.networks.stylegan3.PIECE", 1)  # 16 channels at a time
    torch.testing.assert_close(g(z), whole, rtol=0, atol=1e-5)


@CONFIGS
@pytest.mark.parametrize("options", [{}, {"filter_size": 5, "lrelu_upsampling": 3}], ids=str)
def test_filters_are_designed_as_documented(config, options):
    g = network(config, resolution=32, **options)
    o = {**DEFAULTS, **{k: v for k, v in g.init_kwargs.items() if k in DEFAULTS}}
    s = schedule(32, 3, o)
    for i, name in enumerate(g.synthesis.layer_names):
        layer = getattr(g.synthesis, name)
        for found, expected in zip((layer.up_filter, layer.down_filter), filters(s, i, o)):
            assert (found is None) == (expected is None)
            if found is not None:
                assert found.shape == expected.shape
                assert np.abs(found.double().numpy() - expected).max() < 1e-6


def test_schedule_of_a_256_pixel_network():
    stages = design(256, 3, **SCHEDULE)
    assert [stage.size for stage in stages] == [
        *(36, 36, 36, 52, 52, 84, 84, 148, 148, 148, 276, 276, 276, 256, 256)
    ]
    assert [stage.channels for stage in stages] == [*[512] * 9, 362, 256, 181, 128, 128, 3]
    assert stages[0].cutoff == 2 and stages[-1].cutoff == stages[-3].cutoff == 128


def test_names_of_the_tensors():
    g = Generator(4, 2, 5, 16, 3, num_layers=3, channel_base=64, channel_max=6)
    layer = ["affine.bias", "affine.weight", "bias", "down_filter", "magnitude_ema"]
    layer += ["up_filter", "weight"]
    expected = {
        *(f"mapping.{n}.{k}" for n in ("embed", "fc0", "fc1") for k in ("weight", "bias")),
        "mapping.w_avg",
        *(f"synthesis.input.{k}" for k in ("weight", "affine.weight", "affine.bias")),
        *(f"synthesis.input.{k}" for k in ("transform", "freqs", "phases")),
        *(f"synthesis.L0_36_6.{k}" for k in layer),
        *(f"synthesis.L1_36_4.{k}" for k in layer),
        *(f"synthesis.L2_16_4.{k}" for k in layer),
        *(f"synthesis.L3_16_3.{k}" for k in layer if "filter" not in k),
    }
    state = g.state_dict()
    assert state.keys() == expected
    shapes = {k.removeprefix("synthesis."): tuple(v.shape) for k, v in state.items()}
    assert shapes["input.weight"] == (6, 6) and shapes["input.affine.weight"] == (4, 5)
    assert shapes["input.freqs"] == (6, 2) and shapes["input.phases"] == (6,)
    assert shapes["L1_36_4.weight"] == (4, 6, 3, 3) and shapes["L1_36_4.magnitude_ema"] == ()
    assert shapes["L1_36_4.up_filter"] == shapes["L1_36_4.down_filter"] == (12,)
    assert shapes["L3_16_3.weight"] == (3, 4, 1, 1)
    assert shapes["mapping.fc0.weight"] == (5, 9)
    assert g.num_ws == 5 and g.mapping.w_avg_beta == 0.998


@CONFIGS
def test_built_from_its_arguments_without_memory(config):
    g = network(config, c_dim=3, resolution=32)
    with torch.device("meta"):
        other = Generator(**g.init_kwargs)
    assert all(t.is_meta for t in other.state_dict().values())
    other.load_state_dict(g.state_dict(), assign=True)  # as checkpoint.build does
    z, c = torch.randn(2, 12), torch.eye(3)[:2]
    assert torch.equal(other.eval()(z, c), g(z, c))
    assert other.init_kwargs == g.init_kwargs


@CONFIGS
def test_a_sample_does_not_depend_on_its_batch(config):
    g, z = network(config), torch.randn(5, 12)
    z[3] *= 0.01
    alone = torch.cat([g(one) for one in z.split(1)])
    torch.testing.assert_close(g(z), alone, rtol=0, atol=1e-5)


def test_noise_arguments_change_nothing():
    g, z = network(), torch.randn(2, 12)
    assert torch.equal(
        g(z, noise_mode="const"), g(z, noise_mode="random", noise_keys=torch.tensor([5, 6]))
    )


@CONFIGS
def test_autocast(config):
    g, z = network(config, resolution=32), torch.randn(2, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = g(z)
    expected = g(z)
    assert found.dtype == torch.float32
    difference = (found - expected).abs()
    assert 0 < difference.max() < 0.05 * (expected.max() - expected.min())
    w = g.mapping(z, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # latents and positions are not rounded
        features = g.synthesis.input(g.mapping(z, None))
    assert torch.equal(features, g.synthesis.input(w))


@CONFIGS
def test_gradients_are_those_of_finite_differences(config):
    g = network(config, conv_clamp=0.5)  # what is done in place must not spoil them
    layer = g.synthesis.L0_36_10
    x, w = torch.randn(1, 10, 36, 36), torch.randn(1, 10)
    (slope,) = torch.autograd.grad(layer(x.requires_grad_(True), w).square().sum(), x)
    direction, step = slope / slope.norm(), 0.05
    up, down = (layer(x + s * step * direction, w).double().square().sum() for s in (1, -1))
    assert slope.norm().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=0.01)


@pytest.mark.parametrize("up, taps", [(1, 3), (2, 12), (4, 24), (2, 5)])
@pytest.mark.parametrize("pad", [(9, 8), (-6, -7), (3, 11), (40, 2), (-1, 0)])
def test_upsample_with_any_padding(up, taps, pad):
    x, f = np.random.RandomState(0).randn(2, 20, 20), np.random.RandomState(1).randn(taps)
    zeros = np.zeros((2, 20 * up, 20 * up))
    zeros[:, ::up, ::up] = x
    line = np.apply_along_axis(np.convolve, 1, zeros, f)
    full = np.apply_along_axis(np.convolve, 2, line, f)  # padded by taps - 1 everywhere
    first, last = taps - 1 - pad[0], full.shape[1] - (taps - 1 - pad[1])
    expected = np.pad(full, ((0, 0), (50, 50), (50, 50)))
    expected = expected[:, first + 50 : last + 50, first + 50 : last + 50] * 3
    found = upsample(torch.tensor(x[None]), torch.tensor(f), up, pad, 3)
    assert found.shape[1:] == expected.shape
    assert np.abs(found[0].numpy() - expected).max() < 1e-9


def test_what_no_network_can_be():
    with pytest.raises(UsageError, match="power of two"):
        Generator(4, 0, 4, 24, 3)
    with pytest.raises(UsageError, match="num_critical is 14"):
        Generator(4, 0, 4, 64, 3, num_critical=14)
    with pytest.raises(UsageError, match="no channels"):
        Generator(4, 0, 4, 64, 3, channel_base=8)
    with pytest.raises(TypeError, match="use_noise"):
        Generator(4, 0, 4, 16, 3, use_noise=True)
    unused = {"num_fp16_res": 4, "magnitude_ema_beta": 0.999}  # they steer training alone
    assert Synthesis.__init__.__kwdefaults__ == {**DEFAULTS, **unused}
