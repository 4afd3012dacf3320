"""Checks of what a user's own training loop hands in and gets back.

Shapes and types are checked at once. Values are checked on the device, and on a GPU they are read
only now and then, because reading one waits for everything before it.
"""

import warnings
from dataclasses import dataclass

import torch

from probe.errors import ProbeError, UsageError, kind_of

SMALLEST = 8  # pixels; augmentations shift by eighths of the side
EXPECTED = "float images (N, 3, H, W) in [-1, 1] are expected"
CONVERT = "images.float() / 127.5 - 1 converts uint8"
REALS_WITHIN = 1 + 1 / 127.5  # one grey level for rounding
FAKES_WITHIN = 30.0  # an unclamped generator may overshoot a lot; 0 to 255 is a mistake
SETTLE_EVERY = 4  # steps


def check_images(images: torch.Tensor, what: str) -> None:
    """Refuse anything but float images (N, 3, H, W) of at least 8 pixels.

    Args:
        images: as given by the user.
        what: "reals" or "fakes", for the message.

    Raises:
        UsageError: names the images and says what is expected.
    """
    if not isinstance(images, torch.Tensor):
        raise UsageError(f"{what}: {EXPECTED}, not a {kind_of(images)}.")
    if not images.is_floating_point():
        dtype = str(images.dtype).removeprefix("torch.")
        raise UsageError(f"{what}: {EXPECTED}, not {dtype}; {CONVERT}.")
    if images.layout != torch.strided:
        raise UsageError(f"{what}: {EXPECTED}, not a sparse tensor; images.to_dense() converts it.")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise UsageError(f"{what}: {EXPECTED}, not the shape {shape}.")
    if min(shape[2:]) < SMALLEST:
        raise UsageError(
            f"{what}: images of {shape[2]}x{shape[3]} pixels are too small; {SMALLEST}x{SMALLEST} "
            "is the least."
        )


def check_heads(heads: torch.nn.Module, images: torch.Tensor) -> None:
    """Refuse images on another device than the heads, and heads that are not float32.

    Raises:
        UsageError: says which call helps.
    """
    weight = next(heads.parameters(), None)
    if weight is None:
        return
    if weight.device != images.device:
        raise UsageError(
            f"The images are on {images.device} and the discriminators on {weight.device}: move "
            f"them with .to('{images.device}')."
        )
    if weight.dtype != torch.float32:
        dtype = str(weight.dtype).removeprefix("torch.")
        raise UsageError(
            f"The discriminators are in {dtype}: keep them in float32 and use torch.autocast, "
            "which runs backbones and heads in half precision."
        )


def one_hot_labels(
    labels: torch.Tensor | None, count: int, classes: int, what: str
) -> torch.Tensor | None:
    """Return labels as one-hot rows (N, classes), None if the heads have no classes.

    Raises:
        UsageError: labels are missing, superfluous or of another form.
    """
    name = f"labels of {what}"
    if not classes:
        if labels is not None:
            raise UsageError(f"{name}: these heads have no classes; make them with num_classes.")
        return None
    if labels is None:
        raise UsageError(f"{name}: missing; these heads have {classes} classes.")
    if labels.shape == (count, classes):
        return labels.float()
    if labels.shape != (count,) or labels.is_floating_point():
        raise UsageError(
            f"{name}: integers ({count},) or one-hot ({count}, {classes}) are expected, not "
            f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}."
        )
    return (labels[:, None] == torch.arange(classes, device=labels.device)).float()


def warn_if_positive(reals: torch.Tensor) -> None:
    """Warn of reals that are in [0, 1] by their looks; called once, because it reads a value."""
    if not (reals < 0).any():
        warnings.warn(
            "reals: no real is below 0. Images in [-1, 1] are expected; images * 2 - 1 converts "
            "[0, 1].",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _Watched:
    """A value on the device that must stay at or below a limit; NaN never is."""

    value: torch.Tensor
    limit: float
    message: str


class Watch:
    """Values that are checked when they are at hand: at once on a CPU, later on a GPU."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._steps = 0

    def images(self, images: torch.Tensor, what: str) -> None:
        """Watch the range of images that `check_images` has passed."""
        limit = REALS_WITHIN if what == "reals" else FAKES_WITHIN
        self._add(
            what,
            images.detach().abs().amax(),
            limit,
            f"{what}: {EXPECTED}, and these {{found}}; {CONVERT}, images.clamp(-1, 1) removes "
            "what a resize overshoots.",
        )

    def labels(self, labels: torch.Tensor, classes: int, what: str) -> None:
        """Watch the range of classes given as integers."""
        if labels.ndim == 1:
            most = torch.where(labels.amin() < 0, classes, labels.amax())
            message = f"labels of {what}: a class lies outside 0 to {classes - 1}."
            self._add(f"labels {what}", most.detach(), classes - 1, message)

    def loss(self, name: str, loss: torch.Tensor) -> None:
        """Watch a member's loss."""
        self._add(
            f"loss {name}",
            loss.detach().abs(),
            torch.finfo(torch.float32).max,
            f"The loss of the discriminator on {name} became NaN or infinite. Lower the learning "
            "rates, or use bf16 or float32 if you train in fp16.",
        )

    def _add(self, key: str, value: torch.Tensor, limit: float, message: str) -> None:
        earlier = self._watched.get(key)
        if earlier is not None:  # NaN wins over numbers in torch.maximum
            value = torch.maximum(value, earlier.value.to(value.device))
        self._watched[key] = _Watched(value, limit, message)

    def settle(self) -> None:
        """Check what is watched; on a GPU in the first step and in every fourth.

        Raises:
            ProbeError: names the images or the discriminator.
        """
        on_gpu = any(one.value.is_cuda for one in self._watched.values())
        due = self._steps % SETTLE_EVERY == 0
        self._steps += 1
        if not self._watched or (on_gpu and not due):
            return
        watched, self._watched = list(self._watched.values()), {}
        values = torch.stack([one.value.double() for one in watched]).tolist()
        for one, value in zip(watched, values, strict=True):
            if not value <= one.limit:
                found = f"reach {value:.4g}" if value == value else "hold NaN"
                raise ProbeError(one.message.replace("{found}", found))
