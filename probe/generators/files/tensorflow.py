"""Convert StyleGAN2 networks in TensorFlow pickles: names, layouts and defaults.

The pickle holds (G, D, Gs): `dnnlib.tflib` networks whose variables are arrays. Gs is the average.
Layouts differ from ours: convolution weights are HWIO, dense weights (in, out), and up-sampling
kernels are stored flipped along both axes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from probe.errors import CheckpointError, shown
from probe.generators.checkpoint import check_arguments
from probe.generators.files.records import LARGEST_KEY, SHARED_BYTES, Array, Record, damaged, plain
from probe.generators.networks.layers import filter2d

OLDEST = 4  # version of the pickled network
COMPONENTS = ("mapping", "synthesis")
# Arguments that define the network: TensorFlow's name → our place for it, and TensorFlow's default.
TOP = {
    "latent_size": ("z_dim", 512),
    "label_size": ("c_dim", 0),
    "dlatent_size": ("w_dim", 512),
    "resolution": ("img_resolution", 1024),
    "num_channels": ("img_channels", 3),
}
MAPPING = {
    "mapping_layers": ("num_layers", 8),
    "mapping_lrmul": ("lr_multiplier", 0.01),
    "mapping_fmaps": ("layer_features", 512),
    "label_fmaps": ("embed_features", 512),
    "mapping_nonlinearity": ("activation", "lrelu"),
}
SYNTHESIS = {
    "fmap_base": ("channel_base", 16384),  # doubled below
    "fmap_max": ("channel_max", 512),
    "architecture": ("architecture", "skip"),
    "resample_kernel": ("resample_filter", [1, 3, 3, 1]),
    "nonlinearity": ("activation", "lrelu"),
    "conv_clamp": ("conv_clamp", None),
    "use_noise": ("use_noise", True),
}
OPTIONAL = ("conv_clamp", "mapping_fmaps", "label_fmaps")  # None means no clamp, or w's width
# Arguments with one supported value; any other value would define a different network.
FIXED = {"normalize_latents": True, "fmap_decay": 1.0, "fmap_min": 1}
# Arguments about training, precision, implementation, or defaults of calls.
WITHOUT_EFFECT = frozenset(
    "func_name build_func_name is_training is_validation is_template_graph force_clean_graph "
    "return_dlatents truncation_psi truncation_cutoff truncation_psi_val truncation_cutoff_val "
    "dlatent_avg_beta dlatent_broadcast style_mixing_prob randomize_noise dtype fused_modconv "
    "num_fp16_res fp16_channels_last mapping_func synthesis_func components".split()
)

# Prefixes of variables that only training uses: the stage of progressive growing, which StyleGAN2
# does not use, and running means of losses.
TRAINING = ("lod", "pl_mean", "moving")

Arrays = Mapping[str, np.ndarray]


def is_tensorflow(content: Any) -> bool:
    """Return whether a pickle's content is a tuple or list of TensorFlow networks."""
    return isinstance(content, tuple | list) and any(map(_is_network, content))


def _is_network(value: Any) -> bool:
    return isinstance(value, Record) and value.type.name == "Network"


def read_network(content: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Convert the last network of a pickle (Gs) to one of ours.

    Args:
        content: a pickle's content for which `is_tensorflow` is true.

    Returns:
        The arguments of `probe.generators.networks.stylegan2.Generator`, and its tensors by name.

    Raises:
        CheckpointError: if the network is of another kind, an argument is unknown, or variables are
            missing, duplicated, left over, or of an unexpected shape.
    """
    if not _is_network(content[-1]):
        raise CheckpointError("its last entry, which should be Gs, is not a network")
    variables = _bounded(dict(_variables(content[-1])))
    if any(name.startswith("mapping/LabelConcat") for name in variables):
        raise CheckpointError(
            "its classes are joined by LabelConcat, as before StyleGAN2-ADA, which is not supported"
        )
    if "synthesis/4x4/Conv/mod_weight" not in variables:
        function = shown(_state(content[-1]).get("build_func_name"))
        raise CheckpointError(f"it is a TensorFlow network {function}, not a StyleGAN2 generator")
    init = _init(_arguments(content[-1]))
    check_arguments(init)
    return init, _tensors(init, variables)


def _state(network: Any) -> dict[str, Any]:
    state = network.state if _is_network(network) else None
    if not isinstance(state, dict):
        raise CheckpointError("its TensorFlow network is malformed")
    version = state.get("version")
    if type(version) is not int or version < OLDEST:
        raise CheckpointError(
            f"its TensorFlow network is of version {shown(version)}; {OLDEST} and later are read"
        )
    return state


def _components(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a generator's components; any others would only be ignored, however many."""
    components = state.get("components") or {}
    if not isinstance(components, dict):
        raise CheckpointError("its TensorFlow network is malformed")
    return {name: components[name] for name in COMPONENTS if name in components}


def _arguments(network: Record) -> dict[str, Any]:
    """Return the static arguments, of a network and its components, that define its output."""
    state = _state(network)
    found = {}
    for part in (state, *map(_state, _components(state).values())):
        found |= plain(_known(part.get("static_kwargs") or {}))
    return found


def _known(arguments: Any) -> dict[str, Any]:
    """Return the arguments that define the network.

    Raises:
        CheckpointError: if one is unknown or has an unsupported value.
    """
    if not isinstance(arguments, dict):
        raise CheckpointError("its TensorFlow network is malformed")
    for name, value in arguments.items():
        known = name in TOP or name in MAPPING or name in SYNTHESIS or name in WITHOUT_EFFECT
        if name in FIXED and value != FIXED[name]:
            raise CheckpointError(
                f"its network has {name} = {shown(value)}, which is not supported"
            )
        if not known and name not in FIXED:
            raise CheckpointError(f"its network has an unknown argument {shown(name)}")
    return {n: v for n, v in arguments.items() if n not in WITHOUT_EFFECT and n not in FIXED}


def _variables(network: Record) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a network and its components, prefixed with the component's name.

    Raises:
        CheckpointError: if one is not an array, or a name appears twice.
    """
    seen = set()
    state = _state(network)
    for prefix, part in [("", network), *_components(state).items()]:
        listed = _state(part).get("variables") or []
        if not isinstance(listed, list | tuple):
            raise CheckpointError("its TensorFlow network is malformed")
        for pair in listed:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise CheckpointError("its TensorFlow network is malformed")
            name, value = pair[0], _array(pair[1])
            if not isinstance(name, str) or value is None or value.dtype.kind not in "fiu":
                raise CheckpointError(f"its variable {shown(name)} is not an array")
            name = name if not prefix or name.startswith(f"{prefix}/") else f"{prefix}/{name}"
            if name in seen:
                raise CheckpointError(f"its variable {shown(name)} appears twice")
            seen.add(name)
            yield name, value


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, Array):
        return value.value
    # TensorFlow fetches a variable without axes as a numpy scalar, which reads as a number.
    is_number = type(value) is float or (type(value) is int and abs(value) < LARGEST_KEY)
    return np.array(value, dtype=np.float64) if is_number else None


def _bounded(variables: Arrays) -> Arrays:
    """Refuse a small file whose variables are all the same large array."""
    held = {id(_owner(array)): array.nbytes for array in variables.values()}
    if sum(4 * array.size for array in variables.values()) > 8 * sum(held.values()) + SHARED_BYTES:
        raise damaged("many variables that are one array")
    return variables


def _owner(array: Any) -> Any:
    """Return the array or bytes whose memory an array views."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def _init(arguments: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in arguments.items():
        if value is None and name not in OPTIONAL:
            raise CheckpointError(f"its network has {name} = None, which is not supported")

    def chosen(table: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        return {ours: arguments.get(name, default) for name, (ours, default) in table.items()}

    mapping, synthesis = chosen(MAPPING), chosen(SYNTHESIS)
    base = synthesis["channel_base"]
    if type(base) is not int and not (type(base) is float and base.is_integer()):
        raise CheckpointError(f"its network has fmap_base = {shown(base)}, which is not supported")
    synthesis["channel_base"] = 2 * int(base)
    init = chosen(TOP)
    if not init["c_dim"]:
        del mapping["embed_features"]
    return {**init, "mapping_kwargs": mapping, "synthesis_kwargs": synthesis}


class _Taker:
    """Takes variables one by one, so that it can report what is left over."""

    def __init__(self, variables: Arrays) -> None:
        self.left = dict(variables)

    def take(self, name: str, ndim: int, ones: int = 0) -> np.ndarray:
        """Return a variable of `ndim` axes after dropping its first `ones` axes of length 1."""
        if name not in self.left:
            raise CheckpointError(f"its network lacks the variable '{name}'")
        array = self.left.pop(name)
        if array.ndim != ndim or array.shape[:ones] != (1,) * ones:
            first = f", the first {ones} of length 1" if ones else ""
            raise CheckpointError(
                f"its variable '{name}' has shape {array.shape} where {ndim} axes are expected"
                f"{first}"
            )
        return array[(0,) * ones]

    def dense(self, source: str, kind: str = "", bias: float = 0) -> dict[str, np.ndarray]:
        return {
            "weight": self.take(f"{source}/{kind}weight", 2).T,
            "bias": self.take(f"{source}/{kind}bias", 1) + np.float32(bias),
        }

    def convolution(self, source: str, *, flipped: bool = False) -> np.ndarray:
        weight = self.take(f"{source}/weight", 4)
        return (weight[::-1, ::-1] if flipped else weight).transpose(3, 2, 0, 1)

    def modulated(self, source: str, *, flipped: bool = False) -> dict[str, np.ndarray]:
        """Return weight, bias and style of a modulated convolution.

        TensorFlow stores style biases minus one; ours include the one.
        """
        style = self.dense(source, "mod_", bias=1)
        return {
            "weight": self.convolution(source, flipped=flipped),
            "bias": self.take(f"{source}/bias", 1),
            **{f"affine.{name}": array for name, array in style.items()},
        }


def _tensors(init: Mapping[str, Any], variables: Arrays) -> dict[str, torch.Tensor]:
    taker = _Taker({name: array for name, array in variables.items() if _is_used(name)})
    found = {"mapping.w_avg": taker.take("dlatent_avg", 1)}
    layers = init["mapping_kwargs"]["num_layers"]
    names = {f"mapping.fc{i}": f"mapping/Dense{i}" for i in range(layers)}
    if init["c_dim"]:
        names["mapping.embed"] = "mapping/LabelEmbed"
    for ours, theirs in names.items():
        found |= _under(ours, taker.dense(theirs))
    for level in range(2, int(math.log2(init["img_resolution"])) + 1):
        found |= _under(f"synthesis.b{2**level}", _block(taker, level, init))
    if taker.left:
        odd = shown(min(taker.left))
        raise CheckpointError(f"its variable {odd} belongs to no known layer")
    tensors = {
        name: torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        for name, array in found.items()
    }
    taps = filter2d(init["synthesis_kwargs"]["resample_filter"])
    return tensors | dict.fromkeys(_filters(found), taps)


def _is_used(name: str) -> bool:
    scope, _, leaf = name.rpartition("/")
    if not scope:
        return name == "dlatent_avg"
    return scope.split("/")[0] in COMPONENTS and not leaf.startswith(TRAINING)


def _filters(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the filter buffers, which TensorFlow does not store."""
    for name in found:
        block, _, rest = name.rpartition(".")
        if rest == "weight" and block.endswith(("conv0", "conv1", "skip")):
            yield f"{block}.resample_filter"
        if name.endswith("conv1.weight"):
            yield f"{block.rpartition('.')[0]}.resample_filter"


def _block(taker: _Taker, level: int, init: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the tensors of the block of 2**level pixels."""
    r = 2**level
    options = init["synthesis_kwargs"]
    scope = f"synthesis/{r}x{r}"
    found: dict[str, np.ndarray] = {}
    if level == 2:
        found["const"] = taker.take(f"{scope}/Const/const", 4, ones=1)
        layers = {"conv1": ("Conv", 0)}
    else:
        layers = {"conv0": ("Conv0_up", 2 * level - 5), "conv1": ("Conv1", 2 * level - 4)}
    for ours, (theirs, number) in layers.items():
        layer = taker.modulated(f"{scope}/{theirs}", flipped=ours == "conv0")
        if options["use_noise"]:
            layer["noise_strength"] = taker.take(f"{scope}/{theirs}/noise_strength", 0)
            layer["noise_const"] = taker.take(f"synthesis/noise{number}", 4, ones=2)
        found |= _under(ours, layer)
    is_last = r == init["img_resolution"]
    if is_last or options["architecture"] == "skip":
        old = "synthesis/ToRGB_lod0"  # its name in files of the 'orig' architecture
        known = f"{scope}/ToRGB/weight" in taker.left or f"{old}/weight" not in taker.left
        found |= _under("torgb", taker.modulated(f"{scope}/ToRGB" if known else old))
    if level > 2 and options["architecture"] == "resnet":
        found["skip.weight"] = taker.convolution(f"{scope}/Skip", flipped=True)
    return found


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
