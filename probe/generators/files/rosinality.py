"""rosinality's StyleGAN2: the same networks under other names, used by pSp, e4e and GANSpace.

Tensors convert unchanged, except for the low-pass kernels' gain of 4, which their files include
and ours do not. Both networks flip the kernel of an up-sampling convolution and pad alike. Their
demodulation adds epsilon to weights after the run-time gain, ours before it, which changes images
by about 1e-8. Storing weights with the gain would remove the difference, but would make Adam's
steps on them some seventy times too long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from probe.errors import CheckpointError
from probe.generators.networks.layers import Mapping as MappingNetwork
from probe.generators.networks.layers import filter2d
from probe.generators.networks.shapes import count_numbered

SIGN = "to_rgb1.conv.weight"  # only a generator has this
DISCRIMINATOR_SIGN = "final_linear.1.weight"
AVERAGE = "latent_avg"  # stored next to the state dict in their files
TAPS = (1, 3, 3, 1)  # used if a file omits the kernels, as some do
LATENTS = 4096  # samples for a missing average: as many as their programs draw
RATE = 0.01  # learning rate multiplier of the mapping
MOST_DOUBLINGS = 9  # to 2048 px, to bound the memory for noise that a file lacks
WIDEST, DEEPEST = 16384, 64  # limits on the mapping
GROUP = 4  # images per group in the discriminator's minibatch deviation

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pair:
    """One tensor's names in both layouts.

    Attributes:
        theirs, ours: the names.
        lead, tail: number of length-1 axes that theirs has before and after ours.
        gain: theirs equals ours times this.
    """

    theirs: str
    ours: str
    lead: int = 0
    tail: int = 0
    gain: float = 1

    def to_ours(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return their tensor in our shape."""
        shape = tensor.shape[self.lead : tensor.ndim - self.tail]
        return tensor.reshape(shape) / self.gain if self.gain != 1 else tensor.reshape(shape)

    def to_theirs(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return our tensor in their shape."""
        shape = (1,) * self.lead + tuple(tensor.shape) + (1,) * self.tail
        return tensor.reshape(shape) * self.gain if self.gain != 1 else tensor.reshape(shape)


def _pairs(theirs: str, ours: str, names: Mapping[str, str], **shape: int) -> Iterator[Pair]:
    for their_name, our_name in names.items():
        yield Pair(f"{theirs}.{their_name}", f"{ours}.{our_name}", **shape)


def _resolutions(size: int) -> list[int]:
    return [2**i for i in range(2, size.bit_length())]


def _mapping_pairs(layers: int) -> Iterator[Pair]:
    for i in range(layers):
        yield from _pairs(f"style.{i + 1}", f"mapping.fc{i}", {"weight": "weight", "bias": "bias"})


def _layer_names(size: int) -> list[tuple[str, str]]:
    """Return the styled convolutions from 4 px up: one at 4 px, then two per resolution."""
    names = [("conv1", "synthesis.b4.conv1")]
    for k, r in enumerate(_resolutions(size)[1:]):
        names += [(f"convs.{2 * k + i}", f"synthesis.b{r}.conv{i}") for i in (0, 1)]
    return names


def _generator_pairs(layers: int, size: int) -> Iterator[Pair]:
    yield from _mapping_pairs(layers)
    yield Pair("input.input", "synthesis.b4.const", lead=1)
    affine = {"conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias"}
    for number, (theirs, ours) in enumerate(_layer_names(size)):
        yield Pair(f"{theirs}.conv.weight", f"{ours}.weight", lead=1)
        yield from _pairs(theirs, ours, affine | {"activate.bias": "bias"})
        yield Pair(f"{theirs}.noise.weight", f"{ours}.noise_strength", lead=1)
        yield Pair(f"noises.noise_{number}", f"{ours}.noise_const", lead=2)
        if ours.endswith("conv0"):
            yield Pair(f"{theirs}.conv.blur.kernel", f"{ours}.resample_filter", gain=4)
    for k, r in enumerate(_resolutions(size)):
        theirs, ours = ("to_rgb1" if k == 0 else f"to_rgbs.{k - 1}"), f"synthesis.b{r}"
        yield Pair(f"{theirs}.conv.weight", f"{ours}.torgb.weight", lead=1)
        yield from _pairs(theirs, f"{ours}.torgb", affine)
        yield Pair(f"{theirs}.bias", f"{ours}.torgb.bias", lead=1, tail=2)
        if k:
            yield Pair(f"{theirs}.upsample.kernel", f"{ours}.resample_filter", gain=4)


def _discriminator_pairs(size: int) -> Iterator[Pair]:
    yield from _pairs("convs.0", f"b{size}.fromrgb", {"0.weight": "weight", "1.bias": "bias"})
    for k, r in enumerate(reversed(_resolutions(size)[1:])):
        names = {
            "conv1.0.weight": "conv0.weight",
            "conv1.1.bias": "conv0.bias",
            "conv2.0.kernel": "conv1.resample_filter",
            "conv2.1.weight": "conv1.weight",
            "conv2.2.bias": "conv1.bias",
            "skip.0.kernel": "skip.resample_filter",
            "skip.1.weight": "skip.weight",
        }
        yield from _pairs(f"convs.{k + 1}", f"b{r}", names)
    yield from _pairs("final_conv", "b4.conv", {"0.weight": "weight", "1.bias": "bias"})
    for i, ours in enumerate(("b4.fc", "b4.out")):
        yield from _pairs(f"final_linear.{i}", ours, {"weight": "weight", "bias": "bias"})


# --- theirs to ours


def generator_to_ours(state: Tensors) -> dict[str, torch.Tensor]:
    """Return a generator's tensors under our names.

    Constant noise and an average latent that the file lacks are drawn with a fixed seed. Tensors
    with unknown names keep them, so that loading the network refuses them.

    Args:
        state: a state dict, including "latent_avg", (w_dim,) or one row per layer, if the file
            has it.

    Raises:
        CheckpointError: if it has no mapping layers, or more layers than any network.
    """
    doublings = count_numbered(state, "to_rgbs.{}.conv.weight")
    layers = count_numbered(state, "style.{}.weight", first=1)
    if not 0 < layers <= DEEPEST:
        raise CheckpointError(f"its generator has {layers} mapping layers (style.1.weight, …)")
    if doublings > MOST_DOUBLINGS:
        raise CheckpointError(f"its generator doubles the resolution {doublings} times")
    size = 4 * 2**doublings
    left = dict(state)
    average = left.pop(AVERAGE, None)
    ours = _renamed(left, _generator_pairs(layers, size))
    kernel = next((t for n, t in ours.items() if n.endswith("resample_filter")), filter2d(TAPS))
    for number, (_, layer) in enumerate(_layer_names(size)):
        ours.setdefault(f"{layer}.resample_filter", kernel)
        if f"{layer}.noise_const" not in ours:
            ours[f"{layer}.noise_const"] = _noise(number)
    for r in _resolutions(size):
        ours.setdefault(f"synthesis.b{r}.resample_filter", kernel)
    ours["mapping.w_avg"] = _average(average, ours, layers)
    return ours


def discriminator_to_ours(state: Tensors) -> dict[str, torch.Tensor]:
    """Return a discriminator's tensors under our names."""
    size = 4 * 2 ** count_numbered(state, "convs.{}.conv1.0.weight", first=1)
    return _renamed(dict(state), _discriminator_pairs(size))


def _renamed(left: dict[str, torch.Tensor], pairs: Iterator[Pair]) -> dict[str, torch.Tensor]:
    ours = {p.ours: p.to_ours(left.pop(p.theirs)) for p in pairs if p.theirs in left}
    return ours | left


def _noise(number: int) -> torch.Tensor:
    side = 2 ** ((number + 5) // 2)
    return torch.randn(side, side, generator=torch.Generator().manual_seed(number))


def _average(given: torch.Tensor | None, state: Tensors, layers: int) -> torch.Tensor:
    """Return the average latent (w_dim,): the file's if the same for all layers, else sampled."""
    if given is not None:
        rows = given.reshape(-1, given.shape[-1])
        if (rows == rows[0]).all():  # pSp and e4e repeat it for each layer
            return rows[0].clone()
    first, last = (state[f"mapping.fc{i}.weight"] for i in (0, layers - 1))
    if max(*first.shape, *last.shape) > WIDEST:
        raise CheckpointError(f"its mapping has layers of more than {WIDEST} numbers")
    with torch.device("meta"):  # compare shapes before allocating memory
        network = MappingNetwork(
            first.shape[1], 0, len(last), num_layers=layers, layer_features=len(first),
            track_average=False,
        )  # fmt: skip
    tensors = {name: state[f"mapping.{name}"].float() for name in network.state_dict()}
    network.eval().load_state_dict(tensors, assign=True)
    latents = torch.randn(LATENTS, first.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(latents, None).mean(dim=0)


# --- ours to theirs


def generator_to_theirs(generator: Any) -> dict[str, torch.Tensor]:
    """Return a generator's tensors under their names, including "latent_avg" (w_dim,).

    Raises:
        CheckpointError: if their network cannot represent this one; says why.
    """
    _refuse_inexpressible(generator)
    ours = dict(generator.state_dict())
    layers = generator.mapping.num_layers
    # Their files omit the mapping's learning rate multiplier because it is always this one.
    rate = generator.init_kwargs["mapping_kwargs"].get("lr_multiplier", RATE) / RATE
    if rate != 1:
        ours |= {n: t * rate for n, t in ours.items() if n.startswith("mapping.fc")}
    if not generator.init_kwargs["synthesis_kwargs"].get("use_noise", True):
        for number, (_, layer) in enumerate(_layer_names(generator.img_resolution)):
            ours[f"{layer}.noise_strength"] = torch.zeros([])
            ours[f"{layer}.noise_const"] = torch.zeros_like(_noise(number))
    pairs = _generator_pairs(layers, generator.img_resolution)
    theirs = {pair.theirs: pair.to_theirs(ours[pair.ours]) for pair in pairs}
    return theirs | {AVERAGE: ours["mapping.w_avg"]}


def discriminator_to_theirs(discriminator: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a discriminator that `no_place_for` accepts."""
    ours, pairs = discriminator.state_dict(), _discriminator_pairs(discriminator.img_resolution)
    return {pair.theirs: pair.to_theirs(ours[pair.ours]) for pair in pairs}


def no_place_for(discriminator: Any) -> str | None:
    """Return the feature of a discriminator that theirs cannot represent, None if there is none."""
    arguments = discriminator.init_kwargs
    architecture = arguments.get("architecture", "resnet")
    if architecture != "resnet":
        return f"its architecture is {architecture}, and theirs is resnet"
    if arguments["c_dim"]:
        return f"it has {arguments['c_dim']} classes, and theirs has none"
    if arguments["mbstd_group_size"] != GROUP:
        return f"it compares {arguments['mbstd_group_size']} images, and theirs compares {GROUP}"
    return None


def channels(multiplier: int, sides: Iterable[int]) -> dict[int, int]:
    """Return their generator's channel counts at the given resolutions."""
    return {r: 512 if r <= 32 else 2**14 // r * multiplier for r in sides}


def _refuse_inexpressible(generator: Any) -> None:
    """Refuse a generator that their network cannot represent.

    Raises:
        CheckpointError: names the feature.
    """
    mapping, synthesis = (generator.init_kwargs[f"{n}_kwargs"] for n in ("mapping", "synthesis"))
    widths = {n for t in _weights(generator.mapping) for n in t.shape}
    activations = {mapping.get("activation", "lrelu"), synthesis.get("activation", "lrelu")}
    architecture = synthesis.get("architecture", "skip")
    problem = None
    if generator.c_dim:
        problem = f"it has {generator.c_dim} classes, and rosinality's network has none"
    elif generator.img_channels != 3:
        problem = f"its images have {generator.img_channels} channels, and rosinality's have 3"
    elif architecture != "skip":
        problem = f"its architecture is {architecture}, and rosinality's is skip"
    elif activations != {"lrelu"}:
        problem = "its activation is not lrelu, the only one that rosinality's network has"
    elif len(widths) != 1:
        numbers = ", ".join(map(str, sorted(widths)))
        problem = f"its mapping has layers of {numbers} numbers, and rosinality's have one width"
    if problem:
        raise CheckpointError(f"it cannot be written as rosinality's: {problem}")


def _weights(mapping: MappingNetwork) -> Iterator[torch.Tensor]:
    for i in range(mapping.num_layers):
        yield getattr(mapping, f"fc{i}").weight
