"""Snapshots of every family in every way of writing, and the genuine files if they are at hand."""

import json
import re
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from generators import reference, reference3, reference_fastgan, reference_r3gan
from generators.attributes import ATTRIBUTES
from generators.pickles import (
    GENUINE,
    WRITERS,
    EasyDict,
    dumps,
    named,
    persistent,
    snapshot,
    stylegan2_snapshot,
)
from generators.trees import fastgan, r3gan, tree
from inputs import tiny_generator
from PIL import Image
from torch import nn

from probe.errors import CheckpointError
from probe.generators.files.formats import load_generator
from probe.generators.files.inspect import inspect_file
from probe.generators.files.snapshot import save_snapshot
from probe.generators.files.unpickle import read_pickle
from probe.generators.networks import stylegan3

TOLERANCE = 1e-4  # of the range of the output
BATCH = 2


@pytest.fixture(autouse=True)
def one_thread():
    """More cost these tiny networks time where processors are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def latents(width):
    return np.random.RandomState(0).randn(BATCH, width)


def one_hot(classes):
    return np.eye(classes)[np.arange(BATCH) % classes] if classes else None


def written(path, content, writer="protocol 4"):
    if writer.startswith("dill"):
        pytest.importorskip("dill")
    path.write_bytes(WRITERS[writer](content))
    return path


def close(found, z, c, expected, noise_mode="none"):
    """Compare the images of a generator that was read with float64 ones of the formulas."""
    z = torch.from_numpy(z).float()
    c = None if c is None else torch.from_numpy(c).float()
    images = found(z, c, noise_mode=noise_mode).double().numpy()
    assert images.shape == expected.shape and expected.std() > 0.02
    assert np.abs(images - expected).max() < TOLERANCE * np.ptp(expected)


# --- every family, every way of writing


def made_stylegan2():
    network, z, c = tiny_generator(c_dim=3), latents(16), one_hot(3)
    return stylegan2_snapshot(network), z, c, reference.generate(network, z, c), "const"


def made_stylegan3(**config):
    torch.manual_seed(0)
    network = stylegan3.Generator(
        10, 0, 10, 16, 3, {"num_layers": 2}, channel_base=256, channel_max=8, num_layers=6,
        num_critical=1, magnitude_ema_beta=0.998, **config,
    ).eval()  # fmt: skip
    record = persistent(network, _init_kwargs=dict(network.init_kwargs))
    return snapshot(record), latents(10), None, reference3.generate(network, latents(10)), "none"


def made_fastgan(resolution=64, lite=True, **options):
    """The reference calls the layers of a block by their place alone."""
    network = fastgan(resolution, lite=lite, **options)
    places = {"conv": 1, "conv1": 1, "bn": 2, "bn1": 3, "conv2": 5, "bn2": 7}
    state = {}
    for name, tensor in network.state_dict().items():
        if part := re.fullmatch(r"(synthesis\.feat_\d+)\.(\w+)\.(.+)", name):
            block, layer, leaf = part.groups()
            numbers = (2, 6) if layer == "noise" else (places.get(layer, layer),)
            state |= {f"{block}.main.{number}.{leaf}": tensor for number in numbers}
        else:
            state[name] = tensor
    classes = [i % network.c_dim for i in range(BATCH)] if network.c_dim else None
    z = latents(network.z_dim)
    expected = reference_fastgan.generate(state, z, resolution, classes, lite)
    return snapshot(network), z, one_hot(network.c_dim), expected, "none"


def made_r3gan(**options):
    network = r3gan(**options)
    z, c = latents(network.z_dim), one_hot(network.c_dim)
    init = {
        "BlocksPerStage": options.get("blocks", (2, 1, 3, 1)),
        "CardinalityPerStage": options.get("cardinalities", (4, 3, 8, 2)),
        "ResamplingFilter": options.get("taps", (1, 2, 1)),
    }
    return (
        snapshot(network),
        z,
        c,
        reference_r3gan.generate(network.state_dict(), z, init, c),
        "none",
    )


FAMILIES = {
    "stylegan2": made_stylegan2,
    "stylegan3-t": made_stylegan3,
    "stylegan3-r": lambda: made_stylegan3(conv_kernel=1, use_radial_filters=True),
    "fastgan": made_fastgan,
    "r3gan": made_r3gan,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_way_of_writing(tmp_path, family, writer):
    content, *expected = FAMILIES[family]()
    found = load_generator(written(tmp_path / "G.pkl", content, writer))
    close(found.generator, *expected)
    assert found.ignored == [name for name in content if name != "G_ema"]


# --- arguments that the file does not hold


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 64},
        {"resolution": 128, "ngf": 6},
        {"resolution": 256, "c_dim": 3},
        {"resolution": 64, "c_dim": 5, "ngf": 3},
        {"resolution": 32, "img_channels": 1, "z_dim": 7},
        {"resolution": 512, "ngf": 4},
    ],
    ids=str,
)
def test_fastgan_of_every_kind(tmp_path, options, lite):
    content, *expected = made_fastgan(**{"ngf": 2, "lite": lite} | options)
    path = written(tmp_path / "G.pkl", content)
    found = load_generator(path)
    close(found.generator, *expected)
    ours = tmp_path / "ours.safetensors"
    save_snapshot(ours, found.generator, metadata={}, architecture=found.architecture)
    close(load_generator(ours).generator, *expected)


def test_fastgan_of_1024_pixels(tmp_path):
    content, z, _, expected, _ = made_fastgan(1024, ngf=8, z_dim=3)
    close(load_generator(written(tmp_path / "G.pkl", content)).generator, z, None, expected)


@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
def test_fastgan_without_attributes(tmp_path, resolution):
    """The width of the last layer tells the resolution."""
    network = fastgan(resolution, ngf=4)
    del network.img_resolution, network.synthesis.img_resolution
    found = load_generator(written(tmp_path / "G.pkl", snapshot(network)))
    assert found.generator.img_resolution == resolution


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (8,), "cardinalities": (2,), "blocks": (1,)},
        {"widths": (12, 6, 6), "cardinalities": (4, 3, 2), "blocks": (1, 4, 2), "expansion": 3},
        {"widths": (4, 8), "cardinalities": (1, 8), "blocks": (0, 1), "expansion": 1},
        {"classes": 4, "embedding": 7, "z_dim": 9},
        {"kernel": 5, "img_channels": 1},
        {"taps": (1.0, 4.0, 6.0, 4.0, 1.0)},
        {"taps": (1.0,)},
    ],
    ids=str,
)
def test_r3gan_of_every_kind(tmp_path, options):
    content, *expected = made_r3gan(**options)
    found = load_generator(written(tmp_path / "G.pkl", content))
    close(found.generator, *expected)
    ours = tmp_path / "ours.safetensors"
    save_snapshot(ours, found.generator, metadata={}, architecture=found.architecture)
    close(load_generator(ours).generator, *expected)


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (fastgan, "synthesis.init.init.0", "lacks tensor 'synthesis.init.conv.weight'"),
        (fastgan, "synthesis.to_big", "lacks tensor 'synthesis.to_big.weight'"),
        (fastgan, "synthesis.feat_64.1", "lacks tensor 'synthesis.feat_64.conv2.weight'"),
        (r3gan, "Model.AggregationLayer.Layer", "lacks tensor 'Model.AggregationLayer.Layer"),
        (r3gan, "Model.MainLayers.1.Layers.0.Resampler", "lacks tensor 'Model.MainLayers.1.Layers"),
        (r3gan, "Model.MainLayers.1", "lacks tensor 'Model.MainLayers.1.Layers.0.Resampler.Kern"),
    ],
)
def test_a_layer_that_is_missing_is_named(tmp_path, make, name, words):
    network = make()
    parent, _, leaf = name.rpartition(".")
    del network.get_submodule(parent)._modules[leaf]
    with pytest.raises(CheckpointError, match=words):
        load_generator(written(tmp_path / "G.pkl", snapshot(network)))


def test_widths_that_no_expansion_gives(tmp_path):
    network = r3gan()
    network.Model.MainLayers[2].Layers[1].LinearLayer1.Layer.weight = nn.Parameter(
        torch.ones(7, 8, 1, 1)
    )
    with pytest.raises(CheckpointError, match=r"has shape \(7, 8, 1, 1\) where \(16, 8, 1, 1\)"):
        load_generator(written(tmp_path / "G.pkl", snapshot(network)))


# --- what else genuine files hold


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_whatever_a_module_has_as_an_attribute_is_passed_over(tmp_path, kind, writer):
    if writer.startswith("dill") and kind in ("optimizer", "range"):
        pytest.skip("dill cannot write the one, and writes the other as source text")
    network = tiny_generator()
    content = stylegan2_snapshot(network, other=ATTRIBUTES[kind])
    content["G_ema"].meta["state"]["other"] = ATTRIBUTES[kind]
    path = written(tmp_path / "G.pkl", content, writer)
    weight = load_generator(path).generator.synthesis.b32.conv1.weight
    assert torch.equal(weight, network.synthesis.b32.conv1.weight)
    names = inspect_file(path).globals
    assert names and not any("not allowed" in name or "stops" in name for name in names)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1, "a", None, 2.5}, {1, "a", None, 2.5}),
        (frozenset({"a"}), frozenset({"a"})),
        ([bytearray(b"\xff"), bytearray(), b"\xff", b""], [b"\xff", b"", b"\xff", b""]),
        (1 + 2j, 1 + 2j),
        (torch.Size([2, 3]), (2, 3)),
        ([np.float32(0.5), np.int64(-(2**63)), np.bool_(True)], [0.5, -(2**63), True]),
        ([np.str_("é"), np.bytes_(b"x"), np.complex64(1j)], ["é", b"x", 1j]),
        ([EasyDict(a=1), defaultdict(int, a=1), Counter("a"), OrderedDict(a=1)], [{"a": 1}] * 4),
        (deque([1], 3), [1]),
        (-(2**63), -(2**63)),
    ],
)
def test_data_is_read_as_what_it_is(value, expected, protocol):
    found, _ = read_pickle(dumps(value, protocol))
    assert found == expected and type(found) in (type(expected), bytearray)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("index", range(len(ATTRIBUTES["arrays"])))
def test_arrays_are_read_as_what_they_are(index, protocol):
    array = ATTRIBUTES["arrays"][index]
    found, _ = read_pickle(dumps(array, protocol))
    assert found.value.dtype == array.dtype and np.array_equal(found.value, array)


def test_the_spellings_of_numpy_1_and_2():
    for protocol in (2, 4, 5):
        data = dumps([np.float32(0.5), np.arange(3)], protocol)
        old = data.replace(b"numpy._core.", b"numpy.core.") if protocol == 2 else data
        (scalar, array), names = read_pickle(old)
        assert scalar == 0.5 and array.value.tolist() == [0, 1, 2]
        assert protocol != 2 or "numpy.core.multiarray.scalar" in names


def test_the_spelling_of_earlier_releases_of_torch():
    data = dumps(nn.Buffer(torch.ones(2)), 2)
    assert b"_rebuild_from_type_v2" in data and b"_rebuild_tensor_v2" in data
    found, _ = read_pickle(data.replace(b"_v2\n", b"\n"))
    assert found.tensor().tolist() == [1, 1]


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_any_package_are_records(protocol):
    thing = named("some.package.Thing")()
    found, _ = read_pickle(dumps(thing, protocol))
    assert str(found.type) == "some.package.Thing" and found.state["training"] is True
    box = named("some.package.Box", dict)(a=1)
    box.note = "x"
    found, _ = read_pickle(dumps(box, protocol))
    assert str(found.type) == "some.package.Box" and found.entries == {"a": 1}
    assert found.state == {"note": "x"}


@pytest.mark.parametrize("wrap", ["DataParallel", "DistributedDataParallel", "OptimizedModule"])
@pytest.mark.parametrize("make", [fastgan, r3gan])
def test_a_wrapper_of_the_generator(tmp_path, make, wrap):
    network = make()
    expected = written(tmp_path / "G.pkl", snapshot(network))
    module = {"DataParallel": "torch.nn.parallel.data_parallel", "OptimizedModule": "some.package",
              "DistributedDataParallel": "torch.nn.parallel.distributed"}[wrap]  # fmt: skip
    wrapper = nn.DataParallel(network)
    if wrap != "DataParallel":
        inside = {"_orig_mod" if wrap == "OptimizedModule" else "module": network}
        wrapper = tree(f"{module}.{wrap}", inside, device=torch.device("cuda:0"))
    found = load_generator(written(tmp_path / "wrapped.pkl", snapshot(wrapper)))
    z = torch.randn(1, network.z_dim)
    assert torch.equal(
        found.generator(z, noise_mode="none"),
        load_generator(expected).generator(z, noise_mode="none"),
    )


# What torch.nn.Module.__init__ has set since which release.
SINCE = {
    "1.8": {"_is_full_backward_hook"},
    "1.12": {"_load_state_dict_post_hooks"},
    "2.0": {
        "_backward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
        "_state_dict_pre_hooks",
    },
    "2.1": {"_forward_hooks_always_called"},
}  # fmt: skip


@pytest.mark.parametrize("release", SINCE)
def test_modules_of_earlier_releases_of_torch(tmp_path, release):
    network = fastgan(lite=True)
    expected = load_generator(written(tmp_path / "G.pkl", snapshot(network))).generator
    releases = list(SINCE)
    later = set().union(*(SINCE[r] for r in releases[releases.index(release) :]))
    for module in network.modules():
        for name in later & vars(module).keys():
            delattr(module, name)
        hooks = module._load_state_dict_pre_hooks
        for key, hook in hooks.items():  # wrapped since 1.12
            hooks[key] = getattr(hook, "hook", hook)
    found = load_generator(written(tmp_path / "old.pkl", snapshot(network), "protocol 3"))
    z = torch.randn(1, 12)
    assert torch.equal(found.generator(z), expected(z))


def test_stylegan_xl_is_called_by_its_name(tmp_path):
    stem = tiny_generator()
    stem.mapping.embed_proj = nn.Linear(2, 2)
    for record in (persistent(tiny_generator(), "SuperresGenerator"), persistent(stem)):
        with pytest.raises(CheckpointError, match="a StyleGAN-XL, which is not supported"):
            load_generator(written(tmp_path / "G.pkl", snapshot(record)))


# --- genuine files


FILES = {
    "projected-gan-128.pkl": ("projected-gan-128", "FastGAN (Projected GAN)", 128, 256),
    "projected-gan-256-lite.pkl": ("projected-gan-256-lite", "FastGAN (Projected GAN)", 256, 256),
    "r3gan-32.pkl": ("r3gan-32", "R3GAN", 32, 64),
    "stylegan2-protocol2.pkl": ("stylegan2", "StyleGAN2", 32, 32),
    "stylegan2-protocol3.pkl": ("stylegan2", "StyleGAN2", 32, 32),
    "stylegan2-torchsave.pt": ("stylegan2", "StyleGAN2", 32, 32),
}


@pytest.fixture(params=FILES)
def genuine(request):
    if not (GENUINE / request.param).is_file():
        pytest.skip("genuine files are not at hand")
    return GENUINE / request.param


def test_a_genuine_file_gives_its_images(genuine, cli, tmp_path):
    name, family, resolution, width = FILES[genuine.name]
    expected = np.load(GENUINE / f"{name}.npz")
    found = load_generator(genuine)
    z = torch.from_numpy(expected["z"]).float()
    for key in set(expected.files) - {"z"}:
        psi = float(key.removeprefix("psi")) if key.startswith("psi") else 1.0
        images = found.generator(z, noise_mode="const", truncation_psi=psi).numpy()
        assert np.abs(images - expected[key]).max() < 1e-5 * np.ptp(expected[key])
        done = cli("generate", "--gen", genuine, "--seeds", "0-3", "--noise", "const",
                   "--trunc", psi, "--outdir", tmp_path / key)  # fmt: skip
        assert done.code == 0, done.err
        for image, path in zip(
            expected[key], sorted((tmp_path / key).glob("seed*.png")), strict=True
        ):
            pixels = np.clip(image.transpose(1, 2, 0) * 127.5 + 128, 0, 255).astype(np.uint8)
            assert np.abs(pixels.astype(int) - np.asarray(Image.open(path))).max() <= 1
    shown = json.loads(cli("inspect", genuine, "--json").out)
    assert (shown["family"], shown["resolution"], shown["z_dim"]) == (family, resolution, width)
    assert not any("not allowed" in name for name in shown["globals"])


@pytest.mark.parametrize(
    "name", ["projected-gan-256-lite.pkl", "r3gan-32.pkl", "stylegan2-protocol3.pkl"]
)
def test_a_genuine_file_is_ranked(name, cli, reals, bank):
    if not (GENUINE / name).is_file():
        pytest.skip("genuine files are not at hand")
    done = cli("rank", "--real", reals, "--gen", GENUINE / name, "--bank", bank, "--num", 20)
    assert done.code == 0, done.err
    assert "colour" in done.out


def held(content) -> dict[str, set[str]]:
    """Return which attributes the modules of each class have."""
    found: dict[str, set[str]] = {}

    def walk(module):
        found.setdefault(str(module.type), set()).update(module.state)
        for child in module.state["_modules"].values():
            walk(child)

    walk(content["G_ema"])
    return found


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("projected-gan-128.pkl", lambda: snapshot(fastgan(128))),
        ("projected-gan-256-lite.pkl", lambda: snapshot(fastgan(256, lite=True))),
        ("r3gan-32.pkl", lambda: snapshot(r3gan())),
        ("stylegan2-protocol3.pkl", lambda: stylegan2_snapshot(tiny_generator())),
    ],
)
def test_files_built_here_hold_what_genuine_ones_do(name, make):
    if not (GENUINE / name).is_file():
        pytest.skip("genuine files are not at hand")
    genuine, _ = read_pickle((GENUINE / name).read_bytes())
    ours, _ = read_pickle(dumps(make(), 3))
    assert held(ours) == held(genuine)
