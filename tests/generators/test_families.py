"""Every family from its pickle to a ranking, through the command line, and round trips."""

import json

import open_clip
import pytest
import timm
import torch
import torchvision
from generators.pickles import (
    WRITERS,
    EasyDict,
    Persistent,
    dumps,
    persistent,
    stylegan2_snapshot,
)
from inputs import tiny_generator

from probe.errors import CheckpointError, UsageError
from probe.generators.config import SampleOptions
from probe.generators.files.formats import load_generator
from probe.generators.files.inspect import inspect_file
from probe.generators.files.snapshot import save_snapshot
from probe.generators.networks import fastgan, r3gan, stylegan3
from probe.generators.sampler import GeneratorSource
from probe.training.inherit import inherit


def fastgan_network(**options):
    return fastgan.Generator(z_dim=8, img_resolution=32, ngf=2, **options)


def r3gan_network(**options):
    return r3gan.Generator(
        NoiseDimension=6, WidthPerStage=[12, 8, 4, 4], CardinalityPerStage=[4, 2, 2, 2],
        BlocksPerStage=[1, 1, 1, 1], ExpansionFactor=2, **options,
    )  # fmt: skip


def stylegan3_network(c_dim=0, **options):
    return stylegan3.Generator(
        10, c_dim, 10, 16, 3, {"num_layers": 2}, channel_base=256, channel_max=8, num_layers=6,
        num_critical=1, magnitude_ema_beta=0.998, **options,
    )  # fmt: skip


NETWORKS = {
    "stylegan3-t": stylegan3_network,
    "stylegan3-r, classes": lambda: stylegan3_network(3, conv_kernel=1, use_radial_filters=True),
    "stylegan2": tiny_generator,
    "fastgan": fastgan_network,
    "fastgan, lite": lambda: fastgan_network(synthesis_kwargs={"lite": True}),
    "fastgan, classes": lambda: fastgan_network(c_dim=3, cond=True),
    "r3gan": r3gan_network,
    "r3gan, classes": lambda: r3gan_network(ConditionDimension=3, ConditionEmbeddingDimension=4),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


@pytest.fixture
def pickled(network, tmp_path):
    """A training snapshot as the family writes it, with whole discriminators beside G_ema."""
    record = persistent(
        network, "Generator", _init_args=(), _init_kwargs=EasyDict(network.init_kwargs)
    )
    beside = Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    path = tmp_path / "network-snapshot-000200.pkl"
    content = {"G": None, "D": None, "D_ensemble": [beside], "G_ema": record, "best_fid": 3.5}
    path.write_bytes(dumps(content))
    return path


def test_a_pickle_gives_the_networks_own_images(network, pickled):
    found = load_generator(pickled)
    z = torch.randn(3, network.z_dim)
    c = torch.eye(3) if network.c_dim else None
    with torch.no_grad():
        for mode in ("none", "const"):
            torch.testing.assert_close(
                found.generator(z, c, noise_mode=mode), network(z, c, noise_mode=mode),
                rtol=1e-5, atol=1e-5,
            )  # fmt: skip
    assert found.ignored == ["G", "D", "D_ensemble", "best_fid"]


def test_a_round_trip_through_our_snapshot_gives_the_same_bits(pickled, tmp_path):
    first = load_generator(pickled)
    path = tmp_path / "ours.safetensors"
    save_snapshot(path, first.generator, metadata={}, architecture=first.architecture)
    second = load_generator(path)
    assert second.architecture == first.architecture
    one, other = first.generator.state_dict(), second.generator.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_rank_and_generate_take_it(cli, reals, bank, pickled, network, tmp_path):
    labels = [[p.name, i % 3] for i, p in enumerate(sorted(reals.iterdir()))]
    (reals / "dataset.json").write_text(json.dumps({"labels": labels}))
    ranked = cli("rank", "--real", reals, "--gen", pickled, "--bank", bank, "--format", "json")
    assert ranked.code == 0, ranked.err
    made = cli("generate", "--gen", pickled, "--seeds", "0-2", "--outdir", tmp_path / "out")
    assert made.code == 0, made.err
    assert len(list((tmp_path / "out").glob("seed*.png"))) == 3


def genuine_backbones():
    """Whole modules of the libraries that vision-aided GANs take their backbones from."""
    convolution = torch.nn.utils.spectral_norm(torch.nn.Conv2d(3, 4, 3))
    return torch.nn.Sequential(
        timm.create_model("test_vit"),
        timm.create_model("test_efficientnet"),
        torchvision.models.squeezenet1_1(),
        open_clip.transformer.VisionTransformer(16, 8, 8, 1, 2, 2.0, output_dim=4),
        convolution.eval(),
    )


@pytest.mark.parametrize("writer", ["protocol 2", "protocol 3", "protocol 5", "torch.save"])
def test_whole_backbones_beside_the_generator_are_passed_over(tmp_path, writer):
    network = tiny_generator()
    path = tmp_path / "G.pkl"
    path.write_bytes(WRITERS[writer](stylegan2_snapshot(network, D_ensemble=[genuine_backbones()])))
    found = load_generator(path)
    assert "D_ensemble" in found.ignored and "timm.models.vision_transformer.VisionTransformer" in (
        found.globals
    )
    assert not [name for name in inspect_file(path).globals if "not allowed" in name]
    assert torch.equal(
        found.generator.synthesis.b32.conv1.weight, network.synthesis.b32.conv1.weight
    )


def test_a_plain_module_with_its_hooks_is_read(tmp_path):
    """FastGAN's layers are ordinary modules, their spectral norm a hook that is pickled as well."""
    network = fastgan_network().eval()
    for block in network.synthesis.children():
        for name, layer in list(block.named_children()):
            if isinstance(layer, torch.nn.Conv2d):
                setattr(block, name, torch.nn.utils.spectral_norm(layer).eval())
    record = persistent(network, "Generator", _init_args=(), _init_kwargs=network.init_kwargs)
    record.meta["state"]["_modules"]["synthesis"] = network.synthesis
    path = tmp_path / "G.pkl"
    path.write_bytes(dumps({"G_ema": record}).replace(b"probe.generators.", b"pg_modules.other."))
    z = torch.randn(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            load_generator(path).generator(z, noise_mode="none"), network(z, noise_mode="none"),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_synthesis_arguments_beside_the_others(tmp_path, place):
    """As StyleGAN3's and Projected GAN's trainers write StyleGAN2 networks."""
    network = tiny_generator()
    init = dict(network.init_kwargs)
    more = {**init["synthesis_kwargs"], "num_fp16_res": 4, "fused_modconv_default": "inference"}
    init |= more if place == "beside" else {"synthesis_kwargs": more}
    if place == "beside":
        del init["synthesis_kwargs"]
    record = persistent(network, "Generator", _init_args=(), _init_kwargs=EasyDict(init))
    path = tmp_path / "G.pkl"
    path.write_bytes(dumps({"G_ema": record}))
    found = load_generator(path)
    assert found.generator.init_kwargs["synthesis_kwargs"] == more
    z = torch.randn(2, 16)
    with torch.no_grad():
        assert torch.equal(found.generator(z, noise_mode="const"), network(z, noise_mode="const"))


def test_a_tensor_that_is_not_finite_is_refused(network, tmp_path):
    architecture = {8: "fastgan", 6: "r3gan", 16: "stylegan2", 10: "stylegan3"}[network.z_dim]
    path = tmp_path / "broken.safetensors"
    parameter = next(p for p in network.parameters() if p.ndim == 4)
    with torch.no_grad():
        parameter[0] = float("nan")
    save_snapshot(path, network, metadata={}, architecture=architecture)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_generator(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ngf": 10**6}, "ngf"),
        ({"WidthPerStage": [10**9]}, "WidthPerStage"),
        ({"WidthPerStage": "12"}, "WidthPerStage"),
        ({"shape": 3}, "cannot be built"),
        ({"num_critical": 10**6}, "num_critical"),
        ({"first_cutoff": -1.0}, "first_cutoff"),
    ],
)
def test_absurd_arguments_are_refused_before_memory_is_taken(tmp_path, options, words):
    network = r3gan_network()
    if "ngf" in options or "shape" in options:
        network = fastgan_network()
    elif "num_critical" in options or "first_cutoff" in options:
        network = stylegan3_network()
    record = persistent(
        network, "Generator", _init_args=(), _init_kwargs=EasyDict(network.init_kwargs | options)
    )
    path = tmp_path / "absurd.pkl"
    path.write_bytes(dumps({"G_ema": record}))
    with pytest.raises(CheckpointError, match=words):
        load_generator(path)


@pytest.mark.parametrize("family", ["fastgan", "r3gan"])
def test_truncation_and_init_say_what_they_cannot(tmp_path, family):
    network = NETWORKS[family]().eval()
    path = tmp_path / "network.safetensors"
    save_snapshot(path, network, metadata={}, architecture=family)
    source = GeneratorSource(
        load_generator(path), name="x", count=1, sample=SampleOptions(trunc=0.7)
    )
    with pytest.raises(UsageError, match=r"truncat|psi|trunc"):
        source.load([0], 32)
    with pytest.raises(UsageError, match="only StyleGAN2 networks can be trained"):
        inherit(path, resolution=32, c_dim=0)
