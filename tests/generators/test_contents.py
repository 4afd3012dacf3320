"""Where in a file the generator is, what tensors alone tell of it, and what is none."""

import json
import pickle

import numpy as np
import pytest
import torch
from contexts import new_state
from generators.pickles import EasyDict, Persistent, dumps, persistent
from generators.test_families import NETWORKS
from inputs import tiny_generator
from safetensors.torch import save_file

from probe.errors import CheckpointError
from probe.generators.files.formats import load_generator
from probe.generators.networks.stylegan2 import Generator
from probe.training.config import TrainConfig
from probe.training.inherit import read_discriminator


def record(network):
    return persistent(
        network, "Generator", _init_args=(), _init_kwargs=EasyDict(network.init_kwargs)
    )


def images(network, **options):
    z = torch.from_numpy(np.random.RandomState(3).randn(2, network.z_dim)).float()
    c = torch.eye(network.c_dim)[:2] if network.c_dim else None
    with torch.no_grad():
        return network(z, c, noise_mode="const", **options)


@pytest.fixture(scope="module")
def network():
    return tiny_generator()


@pytest.fixture(scope="module")
def other():
    return tiny_generator(seed=1)


# --- whole generators and their state dicts, in all that people put them into

NOTHING = Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
WRAPPERS = {
    "alone": (lambda g, o: g, ""),
    "tuple of three": (lambda g, o: (o, NOTHING, g), "2"),
    "tuple of two": (lambda g, o: (g, NOTHING), "0"),
    "list": (lambda g, o: [{"step": 3}, g], "1"),
    "G_ema": (lambda g, o: {"G": o, "D": NOTHING, "G_ema": g}, "G_ema"),
    "g_ema": (lambda g, o: {"g": o, "d": NOTHING, "g_ema": g}, "g_ema"),
    "ema": (lambda g, o: {"model": o, "ema": g, "step": 7}, "ema"),
    "ema_model": (lambda g, o: {"generator": o, "ema_model": g}, "ema_model"),
    "generator_ema": (lambda g, o: {"generator": o, "generator_ema": g}, "generator_ema"),
    "G": (lambda g, o: {"G_ema": None, "G": g}, "G"),
    "model": (lambda g, o: {"epoch": 1, "model": g}, "model"),
    "generator": (lambda g, o: {"discriminator": NOTHING, "generator": g}, "generator"),
    "another word": (lambda g, o: {"painter": g}, "painter"),
    "nested": (lambda g, o: {"nets": {"D": NOTHING, "netG": g}}, "nets.netG"),
    "nested below a number": (lambda g, o: {0: {"G_ema": g}}, "0.G_ema"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("form", ["module", "state dict", "state dict of DataParallel"])
def test_a_generator_is_found(tmp_path, network, other, wrapper, form):
    wrap, place = WRAPPERS[wrapper]
    prefix = "module." if form.endswith("DataParallel") else ""
    if form == "module":
        content = wrap(record(network), record(other))
    else:
        both = ({f"{prefix}{n}": t for n, t in g.state_dict().items()} for g in (network, other))
        content = wrap(*both)
        place = ".".join(filter(None, (place, prefix.rstrip("."))))
    (tmp_path / "G.pkl").write_bytes(dumps(content))
    found = load_generator(tmp_path / "G.pkl")
    assert found.place == place and torch.equal(images(found.generator), images(network))


def test_a_damaged_average_is_not_replaced_by_another(tmp_path, network):
    broken = record(network)
    broken.meta["state"]["_modules"]["synthesis"] = 3
    (tmp_path / "G.pkl").write_bytes(dumps({"G": record(network), "G_ema": broken}))
    with pytest.raises(CheckpointError, match="'synthesis.' is not a module"):
        load_generator(tmp_path / "G.pkl")


@pytest.mark.parametrize("key", ["D", "D_ensemble", "opt_state", "augment_pipe"])
def test_what_is_damaged_beside_it_does_not_matter(tmp_path, network, key):
    broken = record(network)
    broken.meta["state"]["_modules"]["synthesis"] = 3
    (tmp_path / "G.pkl").write_bytes(dumps({key: broken, "net": record(network)}))
    assert load_generator(tmp_path / "G.pkl").place == "net"


def test_a_module_within_a_module(tmp_path, network):
    whole = torch.nn.Module()
    whole.encoder = torch.nn.Linear(2, 2)
    outer = persistent(whole, "pSp")
    outer.meta["state"]["_modules"]["decoder"] = record(network)
    (tmp_path / "G.pkl").write_bytes(dumps(outer))
    found = load_generator(tmp_path / "G.pkl")
    assert found.place == "decoder" and found.init["z_dim"] == 16
    assert torch.equal(images(found.generator), images(network))


def test_a_container_that_holds_itself_ends(tmp_path):
    loop = {"a": 1}
    loop["self"], loop["list"] = loop, [loop, [loop]]
    (tmp_path / "G.pkl").write_bytes(pickle.dumps(loop))
    with pytest.raises(CheckpointError, match="no generator, only a, self, list"):
        load_generator(tmp_path / "G.pkl")
    deep = tiny_generator().state_dict()
    for _ in range(40):
        deep = {"model": deep}
    (tmp_path / "deep.pkl").write_bytes(dumps({"model": deep}))
    with pytest.raises(CheckpointError, match="no generator"):
        load_generator(tmp_path / "deep.pkl")


def test_inspection_says_where_it_is(cli, tmp_path, network):
    torch.save({"step": 1, "nets": {"g_ema": network.state_dict()}}, tmp_path / "G.pt")
    found = json.loads(cli("inspect", tmp_path / "G.pt", "--json").out)
    assert found["place"] == "nets.g_ema" and found["ignored"] == ["step"]


# --- tensors alone


@pytest.mark.parametrize(
    "store", [np.array, lambda a: np.array(a, order="F"), lambda a: a.astype(">f4")]
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_may_be_arrays_of_numpy(tmp_path, network, store, protocol):
    arrays = {name: store(tensor.numpy()) for name, tensor in network.state_dict().items()}
    content = {"ema": arrays, "losses": np.ones(3), "names": np.array(["a"])}
    (tmp_path / "G.pkl").write_bytes(dumps(content, protocol))
    found = load_generator(tmp_path / "G.pkl")
    assert found.place == "ema" and torch.equal(images(found.generator), images(network))


def test_arrays_that_are_no_tensors_are_not_taken_for_any(tmp_path, network):
    state = dict(network.state_dict())
    state["synthesis.b4.const"] = np.array(["a", "b"])
    (tmp_path / "G.pkl").write_bytes(dumps(state))
    with pytest.raises(CheckpointError, match="only the tensors of an unknown network"):
        load_generator(tmp_path / "G.pkl")


SHAPES = {
    "defaults": {},
    "classes": {"c_dim": 3},
    "classes, narrow embedding": {"c_dim": 3, "mapping_kwargs": {"embed_features": 5}},
    "one layer": {"mapping_kwargs": {"num_layers": 1}},
    "hidden width": {"mapping_kwargs": {"num_layers": 4, "layer_features": 20}},
    "latent of another width": {"z_dim": 7},
    "orig": {"synthesis_kwargs": {"architecture": "orig"}},
    "resnet": {"synthesis_kwargs": {"architecture": "resnet"}},
    "no noise": {"synthesis_kwargs": {"use_noise": False}},
    "six taps": {"synthesis_kwargs": {"resample_filter": [1, 2, 3, 3, 2, 1]}},
    "fractions": {"synthesis_kwargs": {"resample_filter": [1, 2.5, 1]}},
    "grey": {"img_channels": 1},
    "4 px": {"img_resolution": 4},
    "widths that end in the middle": {"img_resolution": 64,
                                      "synthesis_kwargs": {"channel_base": 200}},
}  # fmt: skip


def shaped(synthesis_kwargs=None, mapping_kwargs=None, **options):
    torch.manual_seed(0)
    arguments = {"z_dim": 12, "c_dim": 0, "w_dim": 12, "img_resolution": 32, "img_channels": 3}
    network = Generator(
        **(arguments | options),
        mapping_kwargs={"num_layers": 2, **(mapping_kwargs or {})},
        synthesis_kwargs={"channel_base": 256, "channel_max": 16, **(synthesis_kwargs or {})},
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        network.mapping.w_avg.copy_(torch.randn(12))
    return network.eval()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("options", SHAPES)
def test_shapes_tell_the_arguments_of_a_stylegan2(tmp_path, options, kind):
    network = shaped(**SHAPES[options])
    path, state = tmp_path / f"G.{kind}", network.state_dict()
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    found = load_generator(path)
    assert torch.equal(images(found.generator), images(network))
    pulled = images(network, truncation_psi=0.5)
    assert torch.equal(images(found.generator, truncation_psi=0.5), pulled)
    again = Generator(**found.init)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in state.items()
    }


def test_a_description_goes_before_shapes(tmp_path):
    network = shaped(synthesis_kwargs={"conv_clamp": 0.5})
    torch.save(network.state_dict(), tmp_path / "G.pt")
    clamped = images(network)
    assert not torch.equal(images(load_generator(tmp_path / "G.pt").generator), clamped)
    (tmp_path / "config.json").write_text(json.dumps({"init": network.init_kwargs}))
    assert torch.equal(images(load_generator(tmp_path / "G.pt").generator), clamped)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of something else"}))
    assert load_generator(tmp_path / "G.pt").architecture == "stylegan2"


@pytest.mark.parametrize("kind", [name for name in NETWORKS if name.startswith(("fastgan", "r3"))])
def test_shapes_tell_the_arguments_of_other_families(tmp_path, kind):
    torch.manual_seed(0)
    network = NETWORKS[kind]().eval()
    torch.save({"ema": network.state_dict()}, tmp_path / "G.pt")
    found = load_generator(tmp_path / "G.pt")
    if found.generator.img_resolution == network.img_resolution:
        torch.testing.assert_close(images(found.generator), images(network), atol=1e-5, rtol=1e-5)
    else:  # FastGAN's layers for 32 and 64 px are the same
        assert kind.startswith("fastgan") and found.generator.img_resolution == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mapping.fc0.weight": None}, "lacks tensor 'mapping.fc0.weight'"),
        ({"synthesis.b8.conv1.weight": None}, "lacks tensor 'synthesis.b8.conv1.weight'"),
        ({"synthesis.b32.torgb.weight": None}, "lacks tensor 'synthesis.b32.torgb.weight'"),
        ({"synthesis.b64.conv9.weight": torch.ones(1)}, "lacks tensor 'synthesis.b64.conv1"),
        ({"synthesis.b99999.x": torch.ones(1)}, "lacks tensor"),
        ({"mapping.fc1.weight": torch.ones(())}, "cannot be built"),
        ({"synthesis.b4.resample_filter": torch.zeros(4, 4)}, "low-pass filter"),
        ({"synthesis.b16.conv1.weight": torch.ones(17, 16, 3, 3)}, "channels that no channel_base"),
        ({"something": torch.ones(1)}, "unknown tensor 'something'"),
    ],
)
def test_shapes_of_no_network(tmp_path, network, change, words):
    state = {n: t for n, t in (network.state_dict() | change).items() if t is not None}
    torch.save(state, tmp_path / "G.pt")
    with pytest.raises(CheckpointError, match=words):
        load_generator(tmp_path / "G.pt")


def test_a_training_state_of_ours_holds_the_average(cli, tmp_path):
    config = TrainConfig(
        z_dim=12, w_dim=12, channel_base=128, channel_max=8, map_layers=3, mbstd_group=4, lr=0.002,
        pl_weight=0.0, d_architecture="resnet",
    )  # fmt: skip
    state = new_state(config)
    with torch.no_grad():
        for parameter in state.average.parameters():
            parameter.add_(0.1)
    record = {name: getattr(state, name).state_dict() for name in state.NETWORKS}
    members = {member.name: member.state_dict() for member in state.members}
    path = tmp_path / "training-state-latest.pt"
    torch.save(record | {"images": 1000, "best": (1.0, 2.0), "members": members}, path)
    found = load_generator(path)
    assert found.place == "average" and "members" in found.ignored
    torch.testing.assert_close(images(found.generator), images(state.average))
    judge = read_discriminator(path)
    assert judge is not None and judge.img_resolution == 16
    made = cli("generate", "--gen", path, "--seeds", "0", "--grid", tmp_path / "grid.png")
    assert made.code == 0, made.err


# --- what is no generator that is read

STRANGERS = {
    "a UNet of diffusers": ({"conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"},
                            "a diffusion model"),
    "Stable Diffusion": ({"model.diffusion_model.input_blocks.0.0.weight"}, "a diffusion model"),
    "guided diffusion": ({"time_embed.0.weight", "input_blocks.0.0.weight"}, "a diffusion model"),
    "a VAE": ({"post_quant_conv.weight", "decoder.mid.block_1.norm1.weight"}, "autoencoder"),
    "StyleGAN-XL": ({"synthesis.input.freqs", "mapping.embed_proj.weight"}, "a StyleGAN-XL"),
    "StyleGAN of the first kind": ({"g_synthesis.blocks.4x4.const", "g_mapping.dense0.weight"},
                                   "the first StyleGAN"),
    "rosinality's StyleGAN": ({"generator.progression.0.conv1.0.weight", "style.1.weight"},
                              "the first StyleGAN"),
    "GigaGAN": ({"init_block", "style_to_conv_modulations.weight"}, "a GigaGAN"),
    "lucidrains": ({"GE.blocks.0.conv1.weight", "SE.net.0.weight"}, "lucidrains"),
    "GFPGAN": ({"style_conv1.modulated_conv.weight", "constant_input.weight"}, "GFPGAN"),
    "BigGAN": ({"shared.weight", "blocks.0.0.bn1.gain.weight"}, "a BigGAN"),
    "a discriminator": ({"b8.conv0.weight", "b4.out.weight"}, "a discriminator without"),
    "rosinality's discriminator": ({"convs.0.0.weight", "final_linear.1.weight"},
                                   "a discriminator without"),
    "anything": ({"layer1.weight", "layer2.weight", "a", "b"}, "only the tensors of an unknown"),
}  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_not_read_is_called_by_its_name(cli, tmp_path, kind, wrap):
    names, words = STRANGERS[kind]
    torch.save(wrap({name: torch.ones(2, 2) for name in sorted(names)}), tmp_path / "x.pt")
    result = cli("generate", "--gen", tmp_path / "x.pt", "--grid", tmp_path / "grid.png")
    assert result.code == 1 and words in result.err, result.err
    assert "module:function" in result.err or "name a file that holds the generator" in result.err
    inspected = cli("inspect", tmp_path / "x.pt")
    assert inspected.code == 1 and words in inspected.out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EDMPrecond", "a diffusion model"),
        ("SuperresGenerator", "a StyleGAN-XL"),
        ("Discriminator", "a discriminator without"),
        ("Painter", r"unknown kinds \(Painter\)"),
    ],
)
def test_classes_that_are_not_read(tmp_path, name, words):
    nothing = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    (tmp_path / "x.pkl").write_bytes(dumps({"ema": Persistent(name, nothing)}))
    with pytest.raises(CheckpointError, match=words):
        load_generator(tmp_path / "x.pkl")
