"""The calls of the package `vision_aided_loss` 0.1.0, on this package's backbones and heads.

`from probe.compat import vision_aided_loss` in place of `import vision_aided_loss`. What differs is
in docs/any-trainer.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe.bank.file import load_bank
from probe.discriminators.critic import Critic
from probe.discriminators.ensemble import Discriminators
from probe.discriminators.frozen import load_frozen
from probe.discriminators.heads import set_activation
from probe.discriminators.losses import HINGE
from probe.discriminators.options import DiscriminatorOptions
from probe.errors import UsageError
from probe.registry import either, lookup

# The package's names → entries of the bank with the same weights.
NAMES = {
    "clip": "clip-vit-b32",
    "dino": "dino-vit-b16",
    "vgg": "vgg16-antialiased",
    "swin": "swin-t-moby",
    "det_coco": "swin-t-cascade",
    "seg_ade": "swin-t-upernet",
}
GONE = ("face_seg", "face_normals")
OUTPUTS = ("conv", "conv_multi_level", "vector")
# Name → loss and smoothing of ours. Whether a head has several levels follows from the backbone, so
# the prefix is ignored.
LOSSES = {
    f"{prefix}{name}": ours
    for prefix in ("", "multilevel_")
    for name, ours in {
        "sigmoid": ("sigmoid", "never"),
        "sigmoid_s": ("sigmoid", "always"),
        "hinge": ("hinge", "never"),
    }.items()
}
Names = str | Sequence[str]


class Discriminator(nn.Module):
    """Heads on one or more frozen backbones, called with `for_real` or `for_G`.

    `for_real=True` gives the discriminator's loss of reals, `for_real=False` that of fakes,
    `for_G=True` the generator's. Detach fakes for the discriminator, as with the package.

    Args:
        cv_type: names joined by "+", or a list: those of the package, or entries of the bank.
        output_type: "conv_multi_level" (maps of several blocks if the backbone has them), "conv"
            (one map; of transformers the pooled vector) or "vector"; one for all, or one each.
        loss_type: "sigmoid", "sigmoid_s" or "hinge", with or without "multilevel_"; one for all, or
            one each; None or "" gives logits.
        diffaug: whether DiffAugment changes the images first.
        device: of backbones and heads.
        create_optim: whether `optim`, an Adam of the heads, is made.
        num_classes: of conditional heads, 0 for none.
        activation: of the heads, LeakyReLU(0.2) or ReLU.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        offline: never download weights.
        **optim: `D_lr`, `D_B1`, `D_B2` and `adam_eps` of `optim`.

    Attributes:
        critics: what does the work; see `probe.Discriminators`.
        cv_ensemble: the frozen backbones; calling it gives their maps and pooled vectors.
        optim: see `create_optim`; None without.

    Raises:
        UsageError: a name, output, loss or activation that does not exist.
        BackboneUnavailable: weights are missing; says what gets them.
    """

    def __init__(
        self,
        cv_type: Names,
        output_type: Names = "conv_multi_level",
        loss_type: Names | None = None,
        diffaug: bool = True,
        device: torch.device | str = "cpu",
        create_optim: bool = False,
        num_classes: int = 0,
        activation: nn.Module | None = None,
        *,
        bank: Path | str | None = None,
        offline: bool = False,
        **optim: Any,
    ) -> None:
        super().__init__()
        names = _split(cv_type)
        outputs = [_known(o, OUTPUTS, "output_type") for o in _for_each(output_type, names)]
        self._losses = [loss for loss in _for_each(loss_type or "", names) if loss]
        options = [_options(loss, diffaug) for loss in _for_each(loss_type or "", names)]
        kind = _activation(activation)
        whole = load_bank(bank)
        specs = [whole.select([_entry(name)])[0] for name in names]
        self.critics = Discriminators(num_classes=num_classes)
        for spec, output, chosen in zip(specs, outputs, options, strict=True):
            backbone, digest = load_frozen(spec, offline=offline)
            if output == "vector" or (output == "conv" and len(backbone.map_shapes) > 1):
                backbone.map_shapes = ()
            head = self.critics.add(backbone, digest=digest, options=chosen)
            set_activation(head, kind)
        self.to(device)
        self.num_models = len(names)
        self.cv_ensemble = Backbones(self.critics)
        self.optim = _adam(self, **optim) if create_optim else None

    @property
    def decoder(self) -> nn.ModuleList:
        """The heads, one per backbone."""
        return nn.ModuleList(network.head for network in self.critics.vision())

    def forward(
        self,
        images: torch.Tensor,
        c: torch.Tensor | None = None,
        detach: bool = False,
        *,
        for_real: bool = True,
        for_G: bool = False,
    ) -> torch.Tensor | list[Any]:
        """Return the losses of all backbones summed, or their logits if no loss was named.

        Args:
            images: (N, 3, H, W) in [-1, 1], any size.
            c: classes, integers (N,) or one-hot.
            detach: whether no gradient flows to the images.
            for_real: whether the images are reals, for the discriminator's loss.
            for_G: whether to return the generator's loss.

        Returns:
            (N, 1), a scalar for hinge losses; without a loss a list with the logits of each
            backbone, (N, 1), or a list of levels that ends with them.

        Raises:
            UsageError: the images or classes are not as described.
        """
        given = images.detach() if detach else images
        what = "reals" if for_real and not for_G else "fakes"
        found = self.critics.logits(given, c, purpose=what)
        if not self._losses:
            return [_as_there(levels) for levels in found.values()]
        total: Any = 0
        for critic in self.critics.critics:
            levels = found[critic.name]
            term = _term(critic, for_real=for_real, for_G=for_G)
            each = torch.stack([term(level).flatten(1).mean(dim=1) if level.ndim > 1 else
                                term(level) for level in levels]).sum(dim=0)  # fmt: skip
            total = total + (each.mean() if critic.loss is HINGE else each[:, None])
        return total


class Backbones(nn.Module):
    """The frozen backbones, outside of parameters and state."""

    def __init__(self, critics: Discriminators) -> None:
        super().__init__()
        self._critics = (critics,)  # a tuple hides them from torch's module registration

    def forward(self, images: torch.Tensor) -> list[Any]:
        """Return each backbone's maps and pooled vector, for images (N, 3, H, W) in [-1, 1]."""
        return [network.features(images) for network in self._critics[0].vision()]


def _term(critic: Critic, *, for_real: bool, for_G: bool) -> Any:
    """Return the loss of single logits."""
    loss = critic.loss
    if for_G:
        return lambda x: loss.fool(x, critic.generator_target)
    return (lambda x: loss.real(x, critic.target)) if for_real else loss.fake


def _as_there(levels: list[torch.Tensor]) -> Any:
    """Return logits in the package's shapes."""
    shaped = [*levels[:-1], levels[-1][:, None]]
    return shaped if len(shaped) > 1 else shaped[0]


def _split(names: Names) -> list[str]:
    parts = names.split("+") if isinstance(names, str) else list(names)
    return [part.strip() for part in parts]


def _for_each(given: Names, names: Sequence[str]) -> list[str]:
    """Return one value per name.

    Raises:
        UsageError: neither one nor as many.
    """
    values = _split(given)
    if len(values) == 1:
        return values * len(names)
    if len(values) != len(names):
        raise UsageError(
            f"{'+'.join(values)}: {len(values)} values for {len(names)} backbones "
            f"({'+'.join(names)}). Give one, or one each."
        )
    return values


def _options(loss: str, diffaug: bool) -> DiscriminatorOptions:
    """Return the options of one backbone.

    Raises:
        UsageError: no such loss.
    """
    ours, smooth = lookup(LOSSES, loss, "loss_type") if loss else ("sigmoid", "never")
    augmentation = "diffaugment" if diffaug else "none"
    return DiscriminatorOptions(
        loss=ours, smooth=smooth, norm="spectral", augmentation=augmentation
    )


def _known(value: str, known: Sequence[str], kind: str) -> str:
    if value not in known:
        raise UsageError(f"{kind}: '{value}' is unknown. Use {either(known)}.")
    return value


def _entry(name: str) -> str:
    """Return the bank's name of a backbone.

    Raises:
        UsageError: one of the package's that nobody distributes any more.
    """
    if name in GONE:
        raise UsageError(
            f"{name}: its weights are in no registry. Choose one of {', '.join(NAMES)}, or any "
            "entry of the bank: probe bank list."
        )
    return NAMES.get(name, name)


def _activation(module: nn.Module | None) -> str:
    """Return the heads' name of a non-linearity.

    Raises:
        UsageError: heads have no such one.
    """
    if module is None or (isinstance(module, nn.LeakyReLU) and module.negative_slope == 0.2):
        return "lrelu"
    if isinstance(module, nn.ReLU):
        return "relu"
    raise UsageError(f"activation: {module} is not available. Use LeakyReLU(0.2) or ReLU().")


def _adam(
    module: nn.Module,
    *,
    D_lr: float = 0.002,
    D_B1: float = 0.0,
    D_B2: float = 0.99,
    adam_eps: float = 1e-8,
    **_: Any,
) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), D_lr, (D_B1, D_B2), adam_eps)
