"""Generators that are programs: TorchScript files and `torch.export` programs.

Loading one may run its code: TorchScript can read and write files, and PyTorch's reader of exported
programs unpickles parts of them. Both are therefore opened only if the user allows it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe.errors import CheckpointError, UsageError, printable
from probe.files import digest_file, utf8_path
from probe.generators.checkpoint import BOUNDS, Checkpoint

TITLES = {"torchscript": "TorchScript program", "export": "torch.export program"}


class Program(nn.Module):
    """A program as a generator (see `probe.generators.base.Generator`).

    It is called with z, or z and one-hot classes, and returns images. A program that draws its own
    random numbers runs image by image, each with its own random stream, so that an image does not
    depend on its neighbours. A program with a fixed batch size gets full batches.

    Args:
        module: the program.
        title: its kind, for messages.
        z_dim: width of the latent.
        c_dim: number of classes; 0 calls it with z alone.
        batch: the only batch size it accepts, None for any.

    Raises:
        CheckpointError: if it fails, or returns no images.
    """

    def __init__(
        self, module: nn.Module, *, title: str, z_dim: int, c_dim: int, batch: int | None = None
    ) -> None:
        super().__init__()
        self.module, self.title = module, title
        self.z_dim, self.c_dim, self.batch = z_dim, c_dim, batch
        first, second = (self._sample(stream) for stream in (0, 1))
        self.is_random = not torch.equal(first, second)
        self.img_channels, self.img_resolution = first.shape[1:3]

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return images (N, img_channels, R, R), float32, nominally in [-1, 1].

        Raises:
            UsageError: if truncation or a noise mode other than the program's own is asked for.
            CheckpointError: if the program fails, or returns no images.
        """
        if truncation_psi != 1 or noise_mode != "random":
            raise UsageError(
                f"A {self.title} has neither truncation nor a choice of noise: leave them out."
            )
        size = 1 if self.is_random else self.batch or len(z)
        seeds = noise_keys.tolist() if self.is_random and noise_keys is not None else None
        parts = []
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            with torch.random.fork_rng(devices=[z.device] if z.device.type == "cuda" else []):
                if seeds is not None:
                    torch.manual_seed(seeds[start])
                parts.append(self._run(z[part], None if c is None else c[part]))
        shape = (self.img_channels, self.img_resolution, self.img_resolution)
        odd = next((tuple(part.shape[1:]) for part in parts if part.shape[1:] != shape), None)
        if odd is not None:
            raise CheckpointError(f"its program returns images of shapes {shape} and {odd}")
        return torch.cat(parts)

    def _sample(self, stream: int) -> torch.Tensor:
        """Return one image, drawing the program's random numbers from the given stream."""
        z = torch.zeros(1, self.z_dim).fill_(0.5)
        c = torch.zeros(1, self.c_dim) if self.c_dim else None
        if c is not None:
            c[0, 0] = 1
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(stream)
            return self._run(z, c)

    def _run(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        inputs = [z] if c is None else [z, c]
        if self.batch is not None:
            inputs = [_padded(x, self.batch) for x in inputs]
        try:
            images = self.module(*inputs)
        except Exception as error:  # a foreign program may raise anything
            text = printable(str(error).strip().split("\n")[-1], 200)
            raise CheckpointError(
                f"its program fails for z of shape {tuple(inputs[0].shape)}: {text}"
            ) from error
        if (
            not isinstance(images, torch.Tensor)
            or images.ndim != 4
            or len(images) != len(inputs[0])
            or images.shape[1] not in (1, 3, 4)
            or images.shape[2] != images.shape[3]
            or images.shape[2] == 0
            or not images.is_floating_point()
        ):
            raise CheckpointError(
                f"its program returns {_described(images)}; square float images "
                f"({len(inputs[0])}, 3, R, R) in [-1, 1] are expected"
            )
        return images[: len(z)].float()


def _padded(x: torch.Tensor, length: int) -> torch.Tensor:
    return torch.cat([x, x[-1:].expand(length - len(x), -1)])


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    kind = str(value.dtype).removeprefix("torch.")
    return f"{kind} of shape {tuple(value.shape)}"


def _script(path: Path, z_dim: int | None) -> Program:
    """Load a TorchScript file; it may have attributes `z_dim` and `c_dim`."""
    with utf8_path(path) as known:
        module: Any = torch.jit.load(str(known), map_location="cpu").eval()
    own = getattr(module, "z_dim", None)
    inputs = len(module.forward.schema.arguments) - 1
    c_dim = getattr(module, "c_dim", 0)
    if inputs > 1 and not c_dim:
        inputs = sum(not a.has_default_value() for a in module.forward.schema.arguments) - 1
        if inputs > 1:
            raise CheckpointError(
                "its program takes classes and does not say how many: give it an attribute c_dim"
            )
    return _program(module, "torchscript", z_dim, own, c_dim if inputs > 1 else 0)


def _exported(path: Path, z_dim: int | None) -> Program:
    """Load an exported program, whose inputs have shapes."""
    with utf8_path(path) as known:
        program = torch.export.load(str(known))
    wanted = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and hasattr(node.meta["val"], "shape")
    ]
    if len(shapes) not in (1, 2) or any(len(s) != 2 or type(s[1]) is not int for s in shapes):
        raise CheckpointError("its program takes other inputs than z (N, z_dim) and c (N, c_dim)")
    batch = shapes[0][0]
    return _program(
        program.module(),
        "export",
        z_dim,
        shapes[0][1],
        shapes[1][1] if len(shapes) > 1 else 0,
        batch if type(batch) is int else None,
    )


def _program(
    module: nn.Module,
    kind: str,
    given: int | None,
    own: int | None,
    c_dim: int,
    batch: int | None = None,
) -> Program:
    if given is not None and own is not None and given != own:
        raise UsageError(f"--z-dim: the program's latent has width {own}, not {given}.")
    z_dim = own if given is None else given
    if z_dim is None:
        raise CheckpointError("its program does not say the width of its latent: give --z-dim")
    for name, value in (("z_dim", z_dim), ("c_dim", c_dim)):
        low, high = BOUNDS[name]
        if type(value) is not int or not low <= value <= high:
            raise CheckpointError(f"its program has {name} = {value}; {low} to {high} is expected")
    return Program(module, title=TITLES[kind], z_dim=z_dim, c_dim=c_dim, batch=batch)


LOADERS: dict[str, Callable[[Path, int | None], Program]] = {
    "torchscript": _script,
    "export": _exported,
}


def read_program(path: Path, kind: str, z_dim: int | None) -> Checkpoint:
    """Load a program, which runs its code.

    Args:
        path: the file.
        kind: "torchscript" or "export".
        z_dim: width of the latent, if the program does not give it.

    Raises:
        CheckpointError: if it is damaged or not a generator.
        UsageError: if `z_dim` contradicts the program.
    """
    try:
        generator = LOADERS[kind](path, z_dim)
    except (CheckpointError, UsageError):
        raise
    except Exception as error:  # PyTorch's readers and the program may raise anything
        text = printable(str(error).strip().split("\n")[-1], 200)
        raise CheckpointError(f"it cannot be loaded as a {TITLES[kind]}: {text}") from error
    return Checkpoint(
        generator=generator.requires_grad_(False),
        architecture=kind,
        digest=digest_file(path),
        init={"z_dim": generator.z_dim, "c_dim": generator.c_dim},
    )
