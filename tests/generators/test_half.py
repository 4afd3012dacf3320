"""Half precision where a file says that training used it, if the images stay the same."""

import pytest
import torch

from probe.devices import fast_layout
from probe.events import Note
from probe.generators import half
from probe.generators.checkpoint import Checkpoint
from probe.generators.config import Drawing, SampleOptions
from probe.generators.files.snapshot import save_snapshot
from probe.generators.half import choose_half, half_notes
from probe.generators.networks.stylegan2 import Generator, SynthesisLayer
from probe.generators.open import open_by_seed, open_fakes
from probe.generators.sampler import GeneratorSource

CPU = torch.device("cpu")
SAMPLE = SampleOptions()


def network(num_fp16_res=2, conv_clamp=256, c_dim=0, strength=0.1):
    torch.manual_seed(0)
    options = {"channel_base": 256, "num_fp16_res": num_fp16_res, "conv_clamp": conv_clamp}
    made = Generator(16, c_dim, 16, 32, 3, {"num_layers": 2}, options)
    for name, parameter in made.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(strength)
    return made.eval().requires_grad_(False)


@pytest.fixture
def pays(monkeypatch):
    """Float16 on a CPU, as if it were a GPU."""
    monkeypatch.setattr(half, "_pays", lambda device: True)


def dtypes(generator):
    """Return the dtype of every layer's result, by resolution."""
    found = {}
    for module in generator.modules():
        if isinstance(module, SynthesisLayer):
            module.register_forward_hook(
                lambda m, _, y: found.setdefault(m.resolution, set()).add(y.dtype)
            )
    images = generator(torch.randn(2, 16))
    assert images.dtype == torch.float32
    return found


def test_the_blocks_that_the_file_names_run_in_float16(pays):
    made = network()
    assert made.can_halve and not made.half_precision
    choose_half(made, SAMPLE, CPU)
    assert made.half_precision
    expected = {4: torch.float32, 8: torch.float32, 16: torch.float16, 32: torch.float16}
    assert dtypes(made) == {r: {t} for r, t in expected.items()}
    z = torch.randn(4, 16)
    found = made(z, noise_mode="const")
    made.half_precision = False
    exact = made(z, noise_mode="const")
    assert 0 < (found - exact).abs().max() < 1e-2 * exact.abs().max()


def test_large_styles_and_weights_stay_in_range(pays):
    made = network()
    for block in (made.synthesis.b16, made.synthesis.b32):
        for layer in (block.conv0, block.conv1):
            layer.affine.bias.fill_(3000)
            layer.weight.mul_(1000)
    choose_half(made, SAMPLE, CPU)
    assert made.half_precision


@pytest.mark.parametrize(
    "options", [{"num_fp16_res": 0}, {"conv_clamp": None}, {"num_fp16_res": 2, "c_dim": 3}]
)
def test_which_generators_have_such_blocks(options, pays):
    made = network(**options)
    choose_half(made, SAMPLE, CPU)
    assert made.half_precision == ("c_dim" in options)


@pytest.mark.parametrize("reason", ["cpu", "fp32", "switch", "far", "infinite"])
def test_float32_stays(reason, monkeypatch):
    made, precision = network(), "auto"
    if reason != "cpu":
        monkeypatch.setattr(half, "_pays", lambda device: True)
    if reason == "fp32":
        precision = "fp32"
    if reason == "switch":
        monkeypatch.setenv("PROBE_ACCEL", "0")
    if reason == "far":
        monkeypatch.setattr(half, "LEVELS", -1)
    if reason == "infinite":
        made.synthesis.b32.torgb.weight.mul_(1e7)
        made.synthesis.b32.torgb.conv_clamp = None
    choose_half(made, SAMPLE, CPU, precision)
    assert not made.half_precision and not half_notes(made, "g")


def test_the_keys_and_the_record_name_the_precision(pays):
    made = network()
    checkpoint = Checkpoint(made, "stylegan2", "digest", {})
    before = GeneratorSource(checkpoint, name="g", count=2)
    choose_half(made, SAMPLE, CPU)
    after = GeneratorSource(checkpoint, name="g", count=2)
    assert set(before.keys([0, 1])).isdisjoint(after.keys([0, 1]))
    assert "precision" not in before.identity() and after.identity()["precision"] == "fp16"


def test_the_user_is_told(pays, tmp_path):
    path, made = tmp_path / "g.safetensors", network()
    save_snapshot(path, made, metadata={})
    events = []
    draw = open_by_seed(str(path), sample=SAMPLE, device=CPU, on_event=events.append)
    assert [type(e) for e in events] == [Note] and "float16" in events[0].text
    images, _ = draw([3, 4])
    assert images.shape == (2, 3, 32, 32)
    for precision, count in (("auto", 1), ("fp32", 0), ("bf16", 1)):
        source = open_fakes(str(path), None, Drawing(2, 0, SAMPLE, CPU, precision))
        assert len(source.notes) == count


def test_one_layout_for_every_device_and_precision():
    gpu = torch.device("cuda", 0)
    last = torch.channels_last
    assert fast_layout(CPU, "fp32") == fast_layout(CPU, "bf16") == fast_layout(gpu, "fp16") == last
    assert fast_layout(gpu, "tf32") == last
    assert fast_layout(gpu, "fp32") == torch.contiguous_format
