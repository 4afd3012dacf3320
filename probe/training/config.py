"""Every option of a training run. Imports no torch, because the command line reads this."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from probe.discriminators import AUGMENTATIONS, LOSSES
from probe.errors import UsageError
from probe.options import (
    MOST_IMAGES,
    SEEDS,
    SHARE,
    SIDE,
    Range,
    check_numbers,
    option,
    parse_numbers,
)
from probe.probing.strategies import STRATEGIES
from probe.registry import either

PRESETS = (
    "auto", "small32", "small64", "cifar", "paper256", "paper256_2fmap", "paper512", "paper1024",
    "stylegan2",
)  # fmt: skip
CHOICES: dict[str, Collection[str]] = {
    "strategy": STRATEGIES,
    "cfg": PRESETS,
    "aug": AUGMENTATIONS,
    "aug_heads": AUGMENTATIONS,
    "head_loss": LOSSES,
    "d_architecture": ("resnet", "orig"),
    "head_norm": ("equalised", "spectral"),
    "smooth": ("auto", "always", "never"),
}
LEAST_KIMG = 0.001  # one image
KIMG = Range(0, 1_000_000)
WEIGHT = Range(0, 1_000_000)  # of a loss term
STEPS = Range(1, 1_000_000)
LATENT = Range(1, 16384)  # widths that `probe.generators.checkpoint` accepts in a snapshot
LEAST_IMAGES = 16  # for an evaluation


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `probe train`. `None` takes the preset's value (see `probe.training.presets`)."""

    strategy: str = option("none", f"How discriminators are chosen: {either(STRATEGIES)}.")
    k: int = option(3, "Total number of backbones to use.", Range(1, 1000), flags="--k -k --num")
    kimg: float | None = option(
        None,
        "Training length in thousands of real images shown; default depends on the image count.",
        Range(LEAST_KIMG, KIMG.most),
    )
    stage_kimg: str | None = option(
        None, "Length of each stage, warm-up first: '500,4000,1000,1000'."
    )
    patience: int = option(
        0,
        "End a stage after this many snapshots without improvement; 0 disables it.",
        Range(0, 1_000_000),
    )
    cfg: str = option("auto", f"Preset: {', '.join(PRESETS)}.")
    batch: int | None = option(None, "Images per step, across all processes.", Range(1, 65536))
    resolution: int | None = option(None, "Side in pixels; by default that of the images.", SIDE)
    cond: bool = option(False, "Train a conditional generator on the labels in dataset.json.")
    channel_base: int | None = option(
        None, "Channels at resolution r: channel-base / r, …", Range(16, 2**20)
    )
    channel_max: int | None = option(None, "… but at most this many.", LATENT)
    z_dim: int = option(512, "Width of z.", LATENT)
    w_dim: int = option(512, "Width of w.", LATENT)
    map_layers: int | None = option(None, "Number of layers in the mapping network.", Range(1, 64))
    d_architecture: str | None = option(
        None, "Blocks of the GAN's own discriminator: resnet, or orig (no residuals)."
    )
    lr: float | None = option(
        None,
        "Learning rate of all trained networks (Adam, betas 0 and 0.99), before scaling for lazy "
        "regularisation.",
        Range(0, 10, is_open=True),
    )
    gamma: float | None = option(None, "R1 weight.", WEIGHT)
    r1_interval: int = option(16, "Steps between R1 steps (lazy regularisation).", STEPS)
    pl_weight: float | None = option(None, "Path-length weight; 0 disables it.", WEIGHT)
    pl_interval: int = option(4, "Steps between path-length steps.", STEPS)
    style_mixing: float | None = option(None, "Share of images generated from two latents.", SHARE)
    ema_kimg: float | None = option(
        None, "Half-life of the weight average, in thousands of images.", KIMG
    )
    ema_rampup: float | None = option(
        None,
        "Limit the half-life to this share of the images seen so far; 0 for no limit.",
        Range(0, 1000),
    )
    mbstd_group: int | None = option(
        None, "Group size of the discriminator's minibatch-std layer.", Range(1, 65536)
    )
    mirror: bool = option(True, "Flip training images horizontally half of the time.")
    aug: str = option(
        "ada", f"Augmentation for the GAN's own discriminator: {', '.join(AUGMENTATIONS)}."
    )
    target: float = option(0.6, "ADA target of the GAN's own discriminator.", SHARE)
    aug_heads: str = option("ada", f"Augmentation for the backbones: {', '.join(AUGMENTATIONS)}.")
    target_heads: float = option(0.3, "ADA target of each backbone's discriminator.", SHARE)
    aug_p: float | None = option(
        None, "Fixed augmentation probability; disables adaptation.", SHARE, flags="--aug-p --p"
    )
    head_loss: str = option(
        "sigmoid", f"Loss of the discriminators on backbones: {either(LOSSES)}."
    )
    head_norm: str = option(
        "equalised", "Weight normalisation of their heads: equalised or spectral."
    )
    gamma_heads: float = option(
        0.0,
        "R1 weight of their heads, computed on backbone features; 0 (the paper's setting) disables "
        "it.",
        WEIGHT,
    )
    head_cond: bool = option(True, "With --cond, condition the heads on the class, by projection.")
    smooth: str = option(
        "auto",
        "Smooth the real targets of backbones to 0.8: auto (probe accuracy above 0.9, or "
        "diffaugment), always, never.",
    )
    smooth_generator: bool = option(
        True, "Smooth the generator's target as well, as the reference code does."
    )
    holdout: int = option(
        0,
        "Images held out from training, to watch the discriminators overfit.",
        Range(0, MOST_IMAGES),
    )
    eval_num: int = option(
        5000,
        "Fakes per snapshot for evaluation; 0 disables it.",
        Range(0, MOST_IMAGES),
    )
    rank_num: int = option(
        10_000,
        "Maximum number of images per class in a selection.",
        Range(LEAST_IMAGES, MOST_IMAGES),
    )
    track_probes: bool = option(False, "Score every backbone in the bank at each snapshot.")
    tick: float = option(
        4, "Thousands of images between log lines.", Range(0, KIMG.most, is_open=True)
    )
    snap: int = option(10, "Ticks between snapshots.", STEPS)
    seed: int = option(0, "Random seed.", SEEDS)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        self._check_choices()
        check_numbers(self)
        self._check_images()
        self._check_length()

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(
                    f"--{_flag(name)}: '{value}' is unknown. Use one of {', '.join(choices)}."
                )

    def _check_images(self) -> None:
        if 0 < self.eval_num < LEAST_IMAGES:
            raise UsageError(
                f"--eval-num: {self.eval_num} images are too few; use {LEAST_IMAGES} or more, or 0."
            )
        r = self.resolution
        if r is not None and r & (r - 1):
            raise UsageError(f"--resolution: {r} is not a power of two from {SIDE}.")

    def _check_length(self) -> None:
        if self.stage_kimg is not None:
            if self.kimg is not None:
                raise UsageError("--kimg and --stage-kimg both set the length. Give one of them.")
            self.stage_lengths()

    def stage_lengths(self) -> list[float]:
        """Return `stage_kimg` as numbers, warm-up first.

        Raises:
            UsageError: the count does not match the strategy's stages, or a value is out of range.
        """
        assert self.stage_kimg is not None
        lengths = parse_numbers("--stage-kimg", self.stage_kimg, KIMG)
        wanted = self.stage_count
        if len(lengths) != wanted:
            raise UsageError(
                f"--stage-kimg: '{self.stage_kimg}' should be {wanted} comma-separated numbers: "
                f"strategy {self.strategy} has a warm-up and {wanted - 1} "
                "stages."
            )
        if sum(lengths) < LEAST_KIMG:
            raise UsageError(
                f"--stage-kimg: '{self.stage_kimg}' is too short; the total must be at least "
                f"{LEAST_KIMG:g}."
            )
        return lengths

    @property
    def stage_count(self) -> int:
        """Number of stages in the strategy, including the warm-up."""
        return len(self.members_by_stage)

    @property
    def members_by_stage(self) -> list[int]:
        """Number of backbones in use in each stage."""
        return list(STRATEGIES[self.strategy].in_use(self.k))

    def record(self) -> dict[str, Any]:
        """Return the options that affect the results; the length may change during a run."""
        from dataclasses import asdict

        record = {**asdict(self), "kimg": None, "stage_kimg": None}
        if self.d_architecture == "resnet":
            del record["d_architecture"]  # older runs lack the key and must still match
        return record


class ResolvedConfig(TrainConfig):
    """Options with every value filled in; only `kimg`, `stage_kimg` and `aug_p` may be None."""

    batch: int
    resolution: int
    channel_base: int
    channel_max: int
    map_layers: int
    d_architecture: str
    lr: float
    gamma: float
    pl_weight: float
    style_mixing: float
    ema_kimg: float
    ema_rampup: float
    mbstd_group: int


def _flag(name: str) -> str:
    return name.replace("_", "-")
