"""StyleGAN2 in TensorFlow pickles, written from the documented layout."""

import tracemalloc

import numpy as np
import pytest
import torch
from generators.pickles import EasyDict, Network, dumps
from inputs import tiny_generator

from probe.errors import CheckpointError
from probe.generators.files.formats import load_generator
from probe.generators.files.tensorflow import _bounded, read_network
from probe.generators.files.unpickle import read_pickle
from probe.generators.networks.stylegan2 import Generator


def array(tensor):
    return tensor.detach().numpy().copy()


def flipped(weight):
    return np.ascontiguousarray(weight[::-1, ::-1])


def layer(module, *, flip=False, noise=True):
    weight = array(module.weight).transpose(2, 3, 1, 0)
    found = {
        "weight": flipped(weight) if flip else weight,
        "bias": array(module.bias),
        "mod_weight": array(module.affine.weight).T,
        "mod_bias": array(module.affine.bias) - np.float32(1),
    }
    # TensorFlow fetches a variable without axes as a numpy scalar.
    return found | ({"noise_strength": array(module.noise_strength)[()]} if noise else {})


def to_variables(network):
    """Return the variables of mapping and synthesis as a TensorFlow program names them."""
    mapping, synthesis = {}, {}
    for i in range(network.mapping.num_layers):
        dense = getattr(network.mapping, f"fc{i}")
        mapping |= {f"Dense{i}/weight": array(dense.weight).T, f"Dense{i}/bias": array(dense.bias)}
    if network.c_dim:
        embed = network.mapping.embed
        mapping |= {"LabelEmbed/weight": array(embed.weight).T,
                    "LabelEmbed/bias": array(embed.bias)}  # fmt: skip
    for level, r in enumerate(network.synthesis.resolutions, 2):
        block = getattr(network.synthesis, f"b{r}")
        parts = {"Conv": (block.conv1, False, 0)}
        if r > 4:
            parts = {"Conv0_up": (block.conv0, True, 2 * level - 5),
                     "Conv1": (block.conv1, False, 2 * level - 4)}  # fmt: skip
        else:
            synthesis["4x4/Const/const"] = array(block.const)[None]
        found = {}
        for name, (module, flip, number) in parts.items():
            found |= {f"{name}/{leaf}": a for leaf, a in layer(module, flip=flip).items()}
            synthesis[f"noise{number}"] = array(module.noise_const)[None, None]
        if hasattr(block, "torgb"):
            torgb = layer(block.torgb, noise=False)
            found |= {f"ToRGB/{leaf}": a for leaf, a in torgb.items()}
        if hasattr(block, "skip"):
            found["Skip/weight"] = flipped(array(block.skip.weight).transpose(2, 3, 1, 0))
        synthesis |= {f"{r}x{r}/{name}": a for name, a in found.items()}
    return mapping, synthesis


def write(path, network, *, edit=None, protocol=4, version=4, **arguments):
    """Write the network as (G, D, Gs), G and D being something else."""
    mapping, synthesis = to_variables(network)
    options = network.init_kwargs["synthesis_kwargs"]
    static = EasyDict(
        latent_size=network.z_dim, label_size=network.c_dim, dlatent_size=network.w_dim,
        resolution=network.img_resolution, num_channels=network.img_channels,
        fmap_base=options["channel_base"] // 2, fmap_max=options["channel_max"],
        mapping_layers=network.mapping.num_layers, mapping_fmaps=16, label_fmaps=16,
        architecture=options.get("architecture", "skip"), truncation_psi=0.5, randomize_noise=True,
        **arguments,
    )  # fmt: skip
    parts = {"mapping": mapping, "synthesis": synthesis}
    top = {
        "lod": np.float32(0),
        "pl_mean_var": np.float32(1),
        "dlatent_avg": array(network.mapping.w_avg),
    }
    if edit is not None:
        edit(static, parts, top)

    def net(name, variables, components):
        return Network(
            version=version, name=name, static_kwargs=static, components=components,
            variables=list(variables.items()), build_func_name=f"{name}_main",
            build_module_src="raise SystemExit('never run')",
        )  # fmt: skip

    components = {name: net(name, variables, {}) for name, variables in parts.items()}
    path.write_bytes(
        dumps((net("G", {}, {}), net("D", {}, {}), net("G", top, components)), protocol)
    )
    return path


def network_of(architecture, c_dim=0, resolution=32):
    torch.manual_seed(0)
    network = Generator(
        16, c_dim, 16, resolution, 3, {"num_layers": 3},
        {"channel_base": 256, "channel_max": 12, "architecture": architecture},
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        network.mapping.w_avg.copy_(torch.randn(16) * 0.3)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
@pytest.mark.parametrize(
    ("c_dim", "resolution", "protocol"), [(0, 32, 4), (3, 8, 2), (0, 8, 3), (3, 8, 5)]
)
def test_images_are_the_networks(tmp_path, architecture, c_dim, resolution, protocol):
    network = network_of(architecture, c_dim, resolution)
    found = load_generator(write(tmp_path / "G.pkl", network, protocol=protocol)).generator
    z, c = torch.randn(4, 16), torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    for psi in (1.0, 0.7):
        wanted = network(z, c, truncation_psi=psi, noise_mode="const")
        given = found(z, c, truncation_psi=psi, noise_mode="const")
        assert (given - wanted).abs().max() < 1e-4 * (wanted.max() - wanted.min())


def test_it_is_ranked_generated_and_inspected(cli, reals, bank, tmp_path):
    path = write(tmp_path / "G.pkl", network_of("skip"))
    assert cli("rank", "--real", reals, "--gen", path, "--bank", bank).code == 0
    assert cli("generate", "--gen", path, "--seeds", "0-1", "--outdir", tmp_path / "o").code == 0
    looked = cli("inspect", path)
    assert looked.code == 0 and "StyleGAN2" in looked.out and "not allowed" not in looked.out


def test_an_old_name_of_the_last_layer(tmp_path):
    def rename(static, parts, top):
        synthesis = parts["synthesis"]
        for name in [n for n in synthesis if "ToRGB" in n]:
            synthesis[f"ToRGB_lod0/{name.rpartition('/')[2]}"] = synthesis.pop(name)

    network = network_of("orig")
    found = load_generator(write(tmp_path / "G.pkl", network, edit=rename)).generator
    assert torch.equal(found.synthesis.b32.torgb.weight, network.synthesis.b32.torgb.weight)


def test_variables_without_axes_may_be_arrays(tmp_path):
    def as_arrays(static, parts, top):
        for name, value in parts["synthesis"].items():
            parts["synthesis"][name] = np.asarray(value)

    network = network_of("skip")
    assert isinstance(to_variables(network)[1]["4x4/Conv/noise_strength"], np.float32)
    found = load_generator(write(tmp_path / "G.pkl", network, edit=as_arrays)).generator
    wanted = network.synthesis.b4.conv1.noise_strength
    assert found.synthesis.b4.conv1.noise_strength == wanted != 0


def test_names_with_their_component_and_variables_of_training(tmp_path):
    def with_prefix(static, parts, top):
        for part, variables in parts.items():
            top |= {f"{part}/{name}": variables.pop(name) for name in list(variables)}
        top["synthesis/lod"] = np.float32(0)
        top["synthesis/moving_average"] = np.zeros(3, np.float32)

    network = network_of("skip")
    found = load_generator(write(tmp_path / "G.pkl", network, edit=with_prefix)).generator
    state = found.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value)


def drop(part, name):
    return lambda static, parts, top: parts[part].pop(name)


def put(part, name, value):
    return lambda static, parts, top: parts[part].update({name: value})


def argue(**arguments):
    return lambda static, parts, top: static.update(arguments)


NAN = np.full((16, 16), np.nan, np.float32)
BOMB = [0]
for _ in range(60):  # a text of 2**60 numbers
    BOMB = [BOMB, BOMB]


def zeros(*shape):
    return np.zeros(shape, np.float32)


def twice(static, parts, top):
    top["mapping/Dense0/bias"] = parts["mapping"]["Dense0/bias"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop("synthesis", "8x8/Conv1/bias"), "lacks the variable 'synthesis/8x8/Conv1/bias'"),
        (drop("mapping", "Dense1/weight"), "lacks the variable 'mapping/Dense1/weight'"),
        (lambda static, parts, top: top.pop("dlatent_avg"), "lacks the variable 'dlatent_avg'"),
        (twice, "'mapping/Dense0/bias' appears twice"),
        (put("synthesis", "4x4/Const/const", zeros(0, 16, 4, 4)), "first 1 of length 1"),
        (put("synthesis", "4x4/Const/const", zeros(2, 16, 4, 4)), "first 1 of length 1"),
        (put("synthesis", "noise0", zeros(0, 1, 4, 4)), "first 2 of length 1"),
        (put("synthesis", "noise0", zeros(1, 3, 4, 4)), "first 2 of length 1"),
        (put("synthesis", "8x8/Conv1/noise_strength", 10**5000), "is not an array"),
        (put("synthesis", 10**5000, NAN), "its variable something of type int is not an array"),
        (put("synthesis", "8x8/Conv1/noise_strength", float("inf")), "NaN or infinite"),
        (put("synthesis", "8x8/Conv1/bias", np.zeros((2, 2), np.float32)), "where 1 axes"),
        (put("synthesis", "8x8/Conv1/bias", np.zeros(7, np.float32)), r"shape \(7,\)"),
        (put("synthesis", "8x8/Extra/bias", np.zeros(7, np.float32)), "no known layer"),
        (put("mapping", "Dense1/weight", NAN), "NaN"),
        (put("mapping", "Dense1/weight", "text"), "is not an array"),
        (put("mapping", "LabelConcat/weight", NAN), "LabelConcat"),
        (argue(magic=3), "argument 'magic'"),
        (argue(fmap_decay=2.0), "fmap_decay = 2.0"),
        (argue(normalize_latents=False), "normalize_latents = False"),
        (argue(mapping_layers=10**9), "num_layers = 1000000000"),
        (argue(resolution=2**30), "img_resolution"),
        (argue(resolution=[1]), "img_resolution"),
        (argue(resample_kernel="x"), "resample_filter"),
        (argue(fmap_base="x"), "fmap_base"),
        (argue(fmap_base=float("inf")), "fmap_base = inf"),
        (argue(fmap_base=float("nan")), "fmap_base = nan"),
        (argue(fmap_min=BOMB), "fmap_min = something of type list"),
        (argue(fmap_min=-(10**5000)), "fmap_min = something of type int"),
        (argue(resolution=None), "resolution = None"),
        (argue(mapping_layers=None), "mapping_layers = None"),
        (argue(label_size=None), "label_size = None"),
        (argue(architecture="dense"), "no known layer"),
    ],
)
def test_networks_that_do_not_fit(tmp_path, edit, words):
    path = write(tmp_path / "G.pkl", tiny_generator(), edit=edit)
    with pytest.raises(CheckpointError, match=words):
        load_generator(path)


def test_networks_of_another_kind(tmp_path):
    for version, shown in ((3, "3"), (None, "None"), (BOMB, "some"), (-(10**5000), "some")):
        path = write(tmp_path / "G.pkl", tiny_generator(), version=version)
        with pytest.raises(CheckpointError, match=f"version {shown}"):
            load_generator(path)

    def progressive(static, parts, top):
        static.update(use_wscale=True)
        parts["synthesis"] = {"4x4/Dense/weight": NAN}

    write(path, tiny_generator(), edit=progressive)
    with pytest.raises(CheckpointError, match="network 'G_main', not a StyleGAN2"):
        load_generator(path)
    path.write_bytes(dumps((1, Network(version=4), None), 4))
    with pytest.raises(CheckpointError, match="not a network"):
        load_generator(path)
    path.write_bytes(dumps((Network(version=4),), 4))
    with pytest.raises(CheckpointError, match="not a StyleGAN2"):
        load_generator(path)


def test_components_of_other_names_cost_nothing(tmp_path):
    """Long names, or many, would be joined with each of the variables' names."""
    long = "c" * 2**20

    def more(static, parts, top):
        parts[long] = {f"{i}": np.float32(0) for i in range(300)}

    path = write(tmp_path / "G.pkl", tiny_generator(), edit=more)
    content, _ = read_pickle(path.read_bytes())
    tracemalloc.start()
    try:
        read_network(content)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(long)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_many_variables_that_are_one_array_are_refused(tmp_path, protocol):
    one = np.zeros(2**20, np.uint8)

    def share(static, parts, top):
        parts["synthesis"].update({f"x{i}/bias": one for i in range(200)})

    path = write(tmp_path / "G.pkl", tiny_generator(), edit=share, protocol=protocol)
    with pytest.raises(CheckpointError, match="many variables that are one"):
        load_generator(path)


def test_arrays_that_show_one_array_are_refused():
    one = np.zeros(2**20, np.uint8)
    with pytest.raises(CheckpointError, match="many variables that are one"):
        _bounded({f"{i}": one[:].reshape(2, -1) for i in range(60)})
    numbers = bytes(2**20)
    with pytest.raises(CheckpointError, match="many variables that are one"):
        _bounded({f"{i}": np.frombuffer(numbers, np.uint8)[None] for i in range(60)})
