"""Networks to start from: `--init` takes any StyleGAN2 file the package can read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from probe.discriminators.layers import TAPS
from probe.errors import CheckpointError, UsageError, shown
from probe.generators.checkpoint import build_network, check_arguments
from probe.generators.files.companions import Network, read_companions
from probe.generators.files.families import FAMILIES
from probe.generators.files.formats import load_generator
from probe.generators.files.programs import TITLES
from probe.generators.files.torch_file import zip_kind
from probe.generators.networks.layers import filter2d
from probe.generators.networks.stylegan2 import Generator
from probe.training.config import TrainConfig
from probe.training.discriminator import ARCHITECTURES, Discriminator

# Arguments of the original discriminator that affect neither weights nor results here.
IGNORED = ("num_fp16_res", "block_kwargs", "cmap_dim", "mapping_kwargs")


@dataclass(frozen=True)
class Inherited:
    """The networks in a file.

    Attributes:
        digest: SHA-256 of the file.
        generator: the one to train further.
        average: its weight average.
        discriminator: None if the file has none; a new one is made.
    """

    digest: str
    generator: Generator
    average: Generator
    discriminator: Discriminator | None

    def adapt(self, config: TrainConfig) -> TrainConfig:
        """Return the options with the widths and architecture of these networks filled in."""
        init = self.average.init_kwargs
        architecture = config.d_architecture
        if self.discriminator is not None:
            architecture = self.discriminator.init_kwargs["architecture"]
        synthesis, mapping = init["synthesis_kwargs"], init["mapping_kwargs"]
        return replace(
            config,
            z_dim=self.average.z_dim,
            w_dim=self.average.w_dim,
            channel_base=synthesis.get("channel_base", 32768),
            channel_max=synthesis.get("channel_max", 512),
            d_architecture=architecture,
            map_layers=mapping.get("num_layers", 8),
        )


def inherit(path: Path, *, resolution: int, c_dim: int) -> Inherited:
    """Read the networks in a file without running any code from it.

    Args:
        path: a StyleGAN2 file: a StyleGAN2-ADA pickle (G, D and G_ema are used), a rosinality
            checkpoint, or a snapshot of this package (one generator, the average).
        resolution: of the training images.
        c_dim: number of classes in the run.

    Raises:
        CheckpointError: the file cannot be read.
        UsageError: the networks do not fit the images.
    """
    if zip_kind(path) in TITLES:
        raise UsageError(f"--init: {path} is a program; only StyleGAN2 networks can be trained.")
    checkpoint = load_generator(path)
    if checkpoint.architecture != "stylegan2":
        title = FAMILIES[checkpoint.architecture].title
        raise UsageError(
            f"--init: {path} is a {title} generator; only StyleGAN2 networks can be trained."
        )
    average: Any = checkpoint.generator
    if (average.img_resolution, average.img_channels) != (resolution, 3):
        raise UsageError(
            f"--init: {path} makes images of {average.img_resolution} px with "
            f"{average.img_channels} channels; the training images have {resolution} px and 3. "
            f"Choose --resolution {average.img_resolution}, or another file."
        )
    if average.c_dim != c_dim:
        raise UsageError(
            f"--init: {path} has {average.c_dim} classes, this run has {c_dim} (--cond). They must "
            "agree."
        )
    generator: Any = average
    with _named(path):
        companions = read_companions(path)
        if "G" in companions:
            generator = build_network("stylegan2", *companions["G"])
    discriminator = _discriminator(path, companions)
    if discriminator is not None:
        made_for = (discriminator.img_resolution, discriminator.c_dim)
        if made_for != (resolution, c_dim):
            raise UsageError(
                f"--init: the discriminator of {path} is for {made_for[0]} px and {made_for[1]} "
                f"classes, its generator for {resolution} px and {c_dim}."
            )
    return Inherited(checkpoint.digest, generator, average, discriminator)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Prefix errors with the file's name."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}.") from error


def read_discriminator(path: Path) -> Discriminator | None:
    """Return the discriminator in a file that `load_generator` has read, or None.

    Raises:
        CheckpointError: it is damaged, has another architecture, or its tensors do not fit.
    """
    with _named(path):
        companions = read_companions(path)
    return _discriminator(path, companions)


def _discriminator(path: Path, companions: Mapping[str, Network]) -> Discriminator | None:
    if "D" not in companions:
        return None
    with _named(path):
        return _build(*companions["D"])


def _build(init: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Discriminator:
    """Build a discriminator from a file's arguments and tensors.

    Raises:
        CheckpointError: it has another architecture, or its tensors do not fit.
    """
    arguments = dict(init)
    architecture = arguments.get("architecture", "resnet")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"its discriminator is of architecture {shown(architecture)}; only "
            f"{' and '.join(ARCHITECTURES)} are read"
        )
    epilogue = arguments.pop("epilogue_kwargs", None) or {}
    if epilogue.get("mbstd_num_channels", 1) != 1:
        raise CheckpointError("its discriminator has several minibatch-std channels")
    known = {"c_dim", "img_resolution", "img_channels", "channel_base", "channel_max",
             "architecture", "conv_clamp"}  # fmt: skip
    arguments = {k: v for k, v in arguments.items() if k not in IGNORED}
    unknown = sorted(arguments.keys() - known)
    if unknown:
        raise CheckpointError(f"its discriminator has an unknown argument '{unknown[0]}'")
    check_arguments(arguments)
    for name, tensor in state.items():
        if name.endswith("resample_filter") and not _is_usual(tensor):
            raise CheckpointError(f"its discriminator's low-pass '{name}' is not {list(TAPS)}")
    tensors = {k: v for k, v in state.items() if not k.endswith("resample_filter")}
    try:
        with torch.device("meta"):
            shape = Discriminator(**arguments, mbstd_group_size=4)
        wanted = {
            k: tuple(v.shape)
            for k, v in shape.state_dict().items()
            if not k.endswith("resample_filter")
        }
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"its discriminator cannot be built: {error}") from error
    if {k: tuple(v.shape) for k, v in tensors.items()} != wanted:
        odd = sorted(wanted.keys() ^ tensors.keys()) or [
            k for k in wanted if tuple(tensors[k].shape) != wanted[k]
        ]
        raise CheckpointError(f"its discriminator's tensor '{odd[0]}' does not fit")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"its tensor '{name}' holds NaN or infinite values")
    group = epilogue.get("mbstd_group_size", 4)
    network = Discriminator(**arguments, mbstd_group_size=group if group else 4)
    network.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    return network


def _is_usual(kernel: torch.Tensor) -> bool:
    usual = filter2d(TAPS)
    return kernel.shape == usual.shape and torch.allclose(kernel.float(), usual, atol=1e-4)
