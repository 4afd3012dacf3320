"""`probe export`: files that other programs load, and what those programs make of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from generators.documented import documented_discriminator, documented_generator
from generators.pickles import EasyDict, dumps, persistent
from generators.reference import generate as their_images
from generators.reference_rosinality import discriminator as rosinality_discriminator
from generators.reference_rosinality import generate, judge, state_dict
from inputs import tiny_generator
from safetensors import safe_open

from probe.generators.files.formats import load_generator
from probe.generators.files.snapshot import save_snapshot
from probe.generators.networks import r3gan
from probe.generators.networks.stylegan2 import Generator
from probe.training.discriminator import Discriminator
from probe.training.inherit import read_discriminator

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5


def network(c_dim=0, img_channels=3, z_dim=10, mapping=None, **synthesis):
    torch.manual_seed(3)
    made = Generator(
        z_dim, c_dim, 10, 32, img_channels, {"num_layers": 2, **(mapping or {})},
        {"channel_base": 256, "channel_max": 16, **synthesis},
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        made.mapping.w_avg.copy_(torch.randn(10) * 0.3)
    return made.eval().requires_grad_(False)


def judge_of(c_dim=0, **options):
    torch.manual_seed(4)
    return Discriminator(c_dim, 32, 3, channel_base=256, channel_max=16, **options)


def their_pickle(path, generator, judge=None, epilogue=None):
    """Write a pickle of StyleGAN2-ADA's, the discriminator's blocks with a filter of their own."""
    g = persistent(generator, "Generator", _init_args=(),
                   _init_kwargs=EasyDict(generator.init_kwargs))  # fmt: skip
    d = None
    if judge is not None:
        arguments = {k: v for k, v in judge.init_kwargs.items() if k != "mbstd_group_size"}
        arguments["epilogue_kwargs"] = EasyDict(mbstd_group_size=judge.b4.group_size)
        d = persistent(judge, "Discriminator", _init_args=(), _init_kwargs=EasyDict(arguments))
        for r in judge.resolutions:
            block = d.meta["state"]["_modules"][f"b{r}"].meta["state"]
            block["_buffers"]["resample_filter"] = judge.b4.conv.resample_filter
    path.write_bytes(dumps({"G": g, "D": d, "G_ema": g, "augment_pipe": None}))
    return path


def exported(cli, source, name, tmp_path, suffix):
    out = tmp_path / f"exported{suffix}"
    result = cli("export", source, "--format", name, "--out", out)
    assert result.code == 0, result.err
    assert result.out.strip() == str(out)
    return out, result.err


def z_of(width=10):
    return np.random.RandomState(1).randn(3, width)


# --- rosinality


@pytest.mark.parametrize("psi", [1.0, 0.6])
def test_rosinalitys_arithmetic_gives_the_same_images(cli, tmp_path, psi):
    g = network()
    save_snapshot(tmp_path / "G.safetensors", g, metadata={})
    path, said = exported(cli, tmp_path / "G.safetensors", "rosinality", tmp_path, ".pt")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["g_ema", "latent_avg"] and content["latent_avg"].shape == (10,)
    genuine = state_dict(layers=2, widths={4: 16, 8: 16, 16: 16, 32: 8})
    shapes = {n: t.shape for n, t in content["g_ema"].items()}
    assert shapes == {n: t.shape for n, t in genuine.items()}
    expected = their_images(g, z_of(), None, psi)
    found = generate(content["g_ema"], z_of(), psi, content["latent_avg"])
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
    assert "Generator(32, 10, 2)" in said and "{4: 16, 8: 16, 16: 16, 32: 8}" in said


def test_rosinalitys_files_come_back_bit_by_bit(cli, tmp_path):
    """By way of StyleGAN2-ADA's names, the discriminator included."""
    state, judge = state_dict(), rosinality_discriminator()
    average = torch.randn(10)
    first = tmp_path / "first.pt"
    torch.save({"g_ema": state, "latent_avg": average, "d": judge, "g": state}, first)
    ada, _ = exported(cli, first, "stylegan2-ada", tmp_path, ".safetensors")
    last, _ = exported(cli, ada, "rosinality", tmp_path, ".pt")
    found = torch.load(last, weights_only=True)
    for name, wanted in (("g_ema", state), ("d", judge)):
        assert found[name].keys() == wanted.keys()
        assert all(torch.equal(found[name][n], t) for n, t in wanted.items())
    assert torch.equal(found["latent_avg"], average)


def test_what_their_network_lacks_is_expressed_if_it_can_be(cli, tmp_path):
    for number, g in enumerate([
        network(use_noise=False), network(mapping={"lr_multiplier": 0.05}),
        network(resample_filter=[1, 2, 1]), network(conv_clamp=256.0),
    ]):  # fmt: skip
        source = tmp_path / f"{number}.safetensors"
        save_snapshot(source, g, metadata={})
        path, said = exported(cli, source, "rosinality", tmp_path / str(number), ".pt")
        content = torch.load(path, weights_only=True)
        z = torch.from_numpy(z_of()).float()
        found = generate(content["g_ema"], z_of())
        expected = g(z, noise_mode="const").double().numpy()
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        again = load_generator(path).generator(z, noise_mode="const").double().numpy()
        assert np.abs(again - expected).max() < TOLERANCE * np.abs(expected).max()
        assert ("conv_clamp is left out" in said) == (number == 3)
        assert ("blur_kernel=[1, 2, 1]" in said) == (number == 2)


GENUINE = ROOT.parent / "shared" / "checkpoints"


@pytest.mark.skipif(not GENUINE.exists(), reason="needs ../shared/checkpoints")
def test_a_genuine_pickle_gives_its_images_as_rosinalitys(cli, tmp_path):
    """What the original program drew, from its file and by rosinality's arithmetic."""
    source = GENUINE / "stylegan2-protocol3.pkl"
    path, _ = exported(cli, source, "rosinality", tmp_path, ".pt")
    content, drawn = torch.load(path, weights_only=True), np.load(GENUINE / "stylegan2.npz")
    for psi, name in ((1.0, "psi1"), (0.7, "psi0.7")):
        found = generate(content["g_ema"], drawn["z"][:2], psi, content["latent_avg"])
        assert np.abs(found - drawn[name][:2]).max() < TOLERANCE * np.abs(drawn[name]).max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"c_dim": 3}, "3 classes"),
        ({"img_channels": 1}, "images have 1 channels"),
        ({"architecture": "resnet"}, "architecture is resnet"),
        ({"architecture": "orig"}, "architecture is orig"),
        ({"activation": "relu"}, "activation is not lrelu"),
        ({"mapping": {"activation": "linear"}}, "activation is not lrelu"),
        ({"z_dim": 12}, "layers of 10, 12 numbers"),
        ({"mapping": {"layer_features": 14}}, "layers of 10, 14 numbers"),
    ],
)
def test_what_rosinality_has_no_place_for_is_refused(cli, tmp_path, options, words):
    save_snapshot(tmp_path / "G.safetensors", network(**options), metadata={})
    out = tmp_path / "out.pt"
    result = cli("export", tmp_path / "G.safetensors", "--format", "rosinality", "--out", out)
    assert result.code == 1 and words in result.err and not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mbstd_group_size": 8}, "compares 8 images"), ({"conv_clamp": 256.0}, None)],
)
def test_their_discriminator(cli, tmp_path, options, words):
    judge_network = judge_of(**options)
    source = their_pickle(tmp_path / "G.pkl", network(), judge_network)
    path, said = exported(cli, source, "rosinality", tmp_path, ".pt")
    content = torch.load(path, weights_only=True)
    if words:
        assert "d" not in content and "discriminator is left out" in said and words in said
        return
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32))
    with torch.no_grad():
        expected = judge_network(torch.from_numpy(images).float()).double().numpy()
    found = judge(content["d"], images)
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()


# --- StyleGAN2-ADA


def held(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return json.loads(file.metadata()["config"]), tensors


def below(tensors, prefix):
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


@pytest.mark.parametrize("c_dim", [0, 3])
def test_their_networks_load_it_strictly(cli, tmp_path, c_dim):
    g, d = network(c_dim), judge_of(c_dim, mbstd_group_size=8)
    source = their_pickle(tmp_path / "G.pkl", g, d)
    path, said = exported(cli, source, "stylegan2-ada", tmp_path, ".safetensors")
    config, tensors = held(path)
    assert not said
    for prefix, shapes in [("G_ema.", documented_generator(config["init"])),
                           ("D.", documented_discriminator(config["discriminator"]))]:  # fmt: skip
        assert {n: tuple(t.shape) for n, t in below(tensors, prefix).items()} == shapes
    assert config["discriminator"]["epilogue_kwargs"] == {"mbstd_group_size": 8}
    assert all(torch.equal(t, g.state_dict()[n]) for n, t in below(tensors, "G_ema.").items())
    assert all(torch.equal(below(tensors, "D.")[n], t) for n, t in d.state_dict().items())
    again, judge_again = load_generator(path), read_discriminator(path)
    assert again.init["c_dim"] == c_dim and again.place == "G_ema" and again.ignored == ["D"]
    assert judge_again.b4.group_size == 8 and judge_again.c_dim == c_dim
    assert all(torch.equal(judge_again.state_dict()[n], t) for n, t in d.state_dict().items())


def test_arguments_of_ours_or_of_other_programs_are_left_out(cli, tmp_path):
    """StyleGAN3's trainers have more; half precision and clamps are said in any case."""
    g = network(fused_modconv_default="inference_only", fp16_channels_last=True)
    save_snapshot(tmp_path / "G.safetensors", g, metadata={})
    path, _ = exported(cli, tmp_path / "G.safetensors", "stylegan2-ada", tmp_path, ".safetensors")
    config, _ = held(path)
    assert config["init"]["synthesis_kwargs"] == {
        "num_fp16_res": 0, "conv_clamp": None, "channel_base": 256, "channel_max": 16,
        "fp16_channels_last": True,
    }  # fmt: skip
    assert "discriminator" not in config


THEIR_NETWORKS = """
import sys
sys.path.insert(0, {tests!r})
import torch
from generators.documented import documented_discriminator, documented_generator


def fill(module, shapes):
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        at = module
        for word in path:
            if word not in at._modules:
                at.add_module(word, torch.nn.Module())
            at = at._modules[word]
        at.register_buffer(leaf, torch.full(shape, torch.nan))


class Generator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={{}},
                 {synthesis}synthesis_kwargs{default}):
        super().__init__()
        self.z_dim = z_dim
        fill(self, documented_generator(locals()))


class Discriminator(torch.nn.Module):
    def __init__(self, c_dim, img_resolution, img_channels, architecture="resnet",
                 channel_base=256, channel_max=16, num_fp16_res=0, conv_clamp=None, cmap_dim=None,
                 block_kwargs={{}}, mapping_kwargs={{}}, epilogue_kwargs={{}}):
        super().__init__()
        fill(self, documented_discriminator(locals()))
"""


@pytest.mark.parametrize("discriminator", [False, True])
@pytest.mark.parametrize("program", ["stylegan2-ada", "stylegan3"])
def test_the_documented_lines_make_their_pickle(cli, tmp_path, program, discriminator):
    """Run on stand-ins for their classes, of the documented names and arguments."""
    g = network()
    source = their_pickle(tmp_path / "in.pkl", g, judge_of() if discriminator else None)
    done = cli("export", source, "--format", "stylegan2-ada", "--out", tmp_path / "G.safetensors")
    assert done.code == 0, done.err
    page = (ROOT / "docs" / "export.md").read_text()
    lines, other = re.findall(r"```python\n(import json.*?|from training.*?)```", page, re.DOTALL)
    module, star, default = "networks", "", "={}"
    if program == "stylegan3":
        module, star, default = "networks_stylegan2", "**", ""
        imports, update = other.strip().split("\n\n")
        lines = lines.replace("from training.networks import Discriminator, Generator", imports)
        lines = lines.replace('init = config["init"]', 'init = config["init"]\n' + update)
    (tmp_path / "training").mkdir()
    text = THEIR_NETWORKS.format(tests=str(ROOT / "tests"), synthesis=star, default=default)
    (tmp_path / "training" / f"{module}.py").write_text(text)
    (tmp_path / "lines.py").write_text(lines)
    done = subprocess.run(
        [sys.executable, "lines.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = load_generator(tmp_path / "network-snapshot.pkl")
    assert found.place == "G_ema"
    z = torch.from_numpy(z_of()).float()
    assert torch.equal(found.generator(z, noise_mode="const"), g(z, noise_mode="const"))


# --- the command


def test_a_run_stands_for_its_best_snapshot(cli, tmp_path, monkeypatch):
    run = tmp_path / "00000-x"
    run.mkdir()
    (run / "training_options.json").write_text("{}")
    for name, seed in (("000100", 1), ("best", 2)):
        save_snapshot(run / f"network-snapshot-{name}.safetensors", tiny_generator(seed=seed),
                      metadata={})  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = cli("export", run, "--format", "rosinality")
    assert result.code == 0 and result.out == "network-snapshot-best-rosinality.pt\n"
    found = load_generator(tmp_path / result.out.strip()).generator
    assert torch.equal(found.synthesis.b8.conv0.weight,
                       tiny_generator(seed=2).synthesis.b8.conv0.weight)  # fmt: skip
    again = cli("export", run, "--format", "rosinality")
    assert again.code == 2 and "exists already" in again.err
    assert load_generator(tmp_path / result.out.strip())


def test_a_file_is_not_named_as_another_format(cli, tmp_path):
    source, out = tmp_path / "g.safetensors", tmp_path / "x.pkl"
    save_snapshot(source, network(), metadata={})
    refused = cli("export", source, "--format", "stylegan2-ada", "--out", out)
    assert refused.code == 2 and "x.pkl: a stylegan2-ada file ends in .safetensors" in refused.err
    assert not out.exists()


def test_the_state_of_a_run_has_the_discriminator(cli, reals, bank, tmp_path):
    trained = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank,
                  "--kimg", "0.016", "--batch", "4", "--channel-base", "128", "--channel-max", "8",
                  "--z-dim", "8", "--w-dim", "8", "--tick", "0.008", "--snap", "1",
                  "--eval-num", "16", "--resolution", "16")  # fmt: skip
    assert trained.code == 0, trained.err
    state = next((tmp_path / "runs").glob("*/training-state-latest.pt"))
    path, _ = exported(cli, state, "stylegan2-ada", tmp_path, ".safetensors")
    config, tensors = held(path)
    saved = torch.load(state, weights_only=True)
    wanted = below(saved["members"]["D"]["network"], "discriminator.")
    assert all(torch.equal(below(tensors, "D.")[n], t) for n, t in wanted.items())
    assert all(torch.equal(below(tensors, "G_ema.")[n], t) for n, t in saved["average"].items())
    assert config["discriminator"]["img_resolution"] == 16


def test_what_cannot_be_exported_says_so(cli, tmp_path):
    g = r3gan.Generator(NoiseDimension=6, WidthPerStage=[12, 8], CardinalityPerStage=[4, 2],
                        BlocksPerStage=[1, 1], ExpansionFactor=2)  # fmt: skip
    save_snapshot(tmp_path / "R3.safetensors", g, metadata={}, architecture="r3gan")
    for source, name, code, words in [
        ("R3.safetensors", "rosinality", 1, "is a R3GAN generator; only a StyleGAN2 is exported"),
        ("R3.safetensors", "roslinality", 2, "Did you mean 'rosinality'?"),
        ("gone.pkl", "rosinality", 1, "cannot be read"),
    ]:
        result = cli("export", tmp_path / source, "--format", name, "--out", tmp_path / "out.pt")
        assert result.code == code and words in result.err, result.err
    assert not (tmp_path / "out.pt").exists()


def test_a_plain_discriminator_is_not_taken_for_a_residual_one(cli, tmp_path):
    state = judge_of().state_dict()
    plain = {n: t for n, t in state.items() if "skip" not in n}
    torch.save({"G_ema": network().state_dict(), "D": plain}, tmp_path / "G.pt")
    path, said = exported(cli, tmp_path / "G.pt", "rosinality", tmp_path, ".pt")
    assert "The discriminator is left out" in said and "orig" in said
    assert list(torch.load(path, weights_only=True)) == ["g_ema", "latent_avg"]


def test_a_discriminator_that_is_not_read_does_not_stop_the_generator(cli, tmp_path):
    torch.save({"g_ema": state_dict(), "d": {"final_linear.1.weight": torch.ones(1, 3)}},
               tmp_path / "G.pt")  # fmt: skip
    path, said = exported(cli, tmp_path / "G.pt", "stylegan2-ada", tmp_path, ".safetensors")
    assert "The discriminator is left out." in said
    assert load_generator(path).generator.img_resolution == 32
