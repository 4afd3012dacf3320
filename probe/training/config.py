"""Every option of a training run. Imports no torch, because the command line reads this."""

from dataclasses import dataclass
from typing import Any

from probe.discriminators import AUGMENTATIONS, LOSSES
from probe.discriminators.options import NORMS, SMOOTHING
from probe.errors import UsageError
from probe.options import (
    MOST_IMAGES,
    SEEDS,
    SHARE,
    SIDE,
    Range,
    check_choices,
    check_numbers,
    panelled,
    parse_duration,
    parse_numbers,
)
from probe.probing.strategies import STRATEGIES
from probe.registry import either
from probe.training.tracking import TRACKERS

PRESETS = (
    "auto", "small32", "small64", "cifar", "paper256", "paper256_2fmap", "paper512", "paper1024",
    "stylegan2",
)  # fmt: skip
LEAST_KIMG = 0.001  # one image
KIMG = Range(0, 1_000_000)
WEIGHT = Range(0, 1_000_000)  # of a loss term
STEPS = Range(1, 1_000_000)
LATENT = Range(1, 16384)  # widths that `probe.generators.checkpoint` accepts in a snapshot
LEAST_IMAGES = 16  # for an evaluation

# The groups of the help, by what one sets with them.
backbones, schedule = panelled("Backbones"), panelled("Schedule")
network, augmentation = panelled("Network"), panelled("Augmentation")
evaluation, advanced = panelled("Evaluation"), panelled("Advanced")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `probe train`. `None` takes the preset's value (see `probe.training.presets`)."""

    strategy: str = backbones(
        "none", f"How backbones are chosen: {either(STRATEGIES)}.", choices=STRATEGIES
    )
    k: int = backbones(3, "How many backbones to use in all.", Range(1, 1000), flags="--k -k")
    head_loss: str = backbones(
        "sigmoid", f"Loss of the discriminators on backbones: {either(LOSSES)}.", choices=LOSSES
    )
    head_norm: str = backbones(
        "equalised",
        f"How the weights of their heads are normalised: {either(NORMS)}.",
        choices=NORMS,
    )
    gamma_heads: float = backbones(
        0.0,
        "How strongly their gradients on real images are kept small (R1 weight, at the backbones' "
        "features); 0, the paper's setting, disables it.",
        WEIGHT,
    )
    head_cond: bool = backbones(
        True, "With --cond, do not tell the heads the class (by projection)."
    )
    smooth: str = backbones(
        "auto",
        "When they are to call reals 80 % real (smoothed targets): auto (probe accuracy above 0.9, "
        "or diffaugment), always or never.",
        choices=SMOOTHING,
    )
    smooth_generator: bool = backbones(
        True,
        "Leave the generator's target at 1 if theirs are smoothed; the reference code smooths it "
        "too.",
    )
    rank_num: int = backbones(
        10_000,
        "Most images of each class in a selection.",
        Range(LEAST_IMAGES, MOST_IMAGES),
        flags="--rank-num --num",
    )

    kimg: float | None = schedule(
        None,
        "Length of the training in thousands of real images shown; by default set by how many "
        "images there are.",
        Range(LEAST_KIMG, KIMG.most),
    )
    stage_kimg: str | None = schedule(
        None, "Length of each stage instead, the warm-up first: '500,4000,1000,1000'."
    )
    patience: int = schedule(
        0,
        "End a stage after this many snapshots without improvement; 0 never does.",
        Range(0, 1_000_000),
    )
    batch: int | None = schedule(None, "Images in each step, over all processes.", Range(1, 65536))

    cfg: str = network("auto", f"Settings by name (preset): {either(PRESETS)}.", choices=PRESETS)
    resolution: int | None = network(None, "Side in pixels; by default that of the images.", SIDE)
    cond: bool = network(False, "Learn the classes in dataset.json (conditional generator).")
    channel_base: int | None = network(
        None, "Width of the layers: this number / resolution channels …", Range(16, 2**20)
    )
    channel_max: int | None = network(None, "… but at most this many channels.", LATENT)
    z_dim: int = network(512, "How many random numbers make an image (width of z).", LATENT)
    w_dim: int = network(512, "How many numbers style it (width of w).", LATENT)
    map_layers: int | None = network(None, "Layers from z to w (mapping network).", Range(1, 64))
    d_architecture: str | None = network(
        None,
        "Blocks of the GAN's own discriminator: resnet, or orig (no residuals).",
        choices=("resnet", "orig"),
    )

    mirror: bool = augmentation(
        True, "Do not flip training images; by default half of them are, left to right."
    )
    aug: str = augmentation(
        "ada",
        f"How images are distorted for the GAN's own discriminator: {either(AUGMENTATIONS)}.",
        choices=AUGMENTATIONS,
    )
    target: float = augmentation(
        0.6,
        "How sure it may be of training images before they are distorted more (ADA target).",
        SHARE,
    )
    aug_heads: str = augmentation(
        "ada", f"The same for the backbones: {either(AUGMENTATIONS)}.", choices=AUGMENTATIONS
    )
    target_heads: float = augmentation(
        0.3, "How sure each backbone's discriminator may be (ADA target).", SHARE
    )
    aug_p: float | None = augmentation(
        None,
        "Share of distortions that are applied, fixed (p); by default it adapts.",
        SHARE,
        flags="--aug-p --p",
    )

    eval_num: int = evaluation(
        5000,
        "Generated images that each snapshot is judged by; 0 judges none.",
        Range(0, MOST_IMAGES),
    )
    snap: int = evaluation(10, "Log lines from one snapshot to the next (ticks).", STEPS)
    tick: float = evaluation(
        4,
        "Thousands of images from one log line to the next.",
        Range(0, KIMG.most, is_open=True),
    )
    holdout: int = evaluation(
        0,
        "Images kept out of training, to see the discriminators overfit.",
        Range(0, MOST_IMAGES),
    )
    track_probes: bool = evaluation(False, "Score every backbone of the bank at each snapshot.")

    log: str = evaluation(
        "auto",
        f"Where curves, samples and leaderboards go besides the run directory: {either(TRACKERS)}; "
        "auto is tensorboard if it is installed.",
        choices=TRACKERS,
    )

    lr: float | None = advanced(
        None,
        "Step size of all trained networks (learning rate of Adam with betas 0 and 0.99, before "
        "scaling for lazy regularisation).",
        Range(0, 10, is_open=True),
    )
    gamma: float | None = advanced(
        None,
        "How strongly the own discriminator's gradients on real images are kept small (R1 weight).",
        WEIGHT,
    )
    r1_interval: int = advanced(
        16, "Steps from one R1 step to the next (lazy regularisation).", STEPS
    )
    pl_weight: float | None = advanced(
        None,
        "How strongly steps in w are to change images equally (path-length weight); 0 disables it.",
        WEIGHT,
    )
    pl_interval: int = advanced(4, "Steps from one path-length step to the next.", STEPS)
    style_mixing: float | None = advanced(
        None, "Share of images made of two latents (style mixing).", SHARE
    )
    ema_kimg: float | None = advanced(
        None,
        "Memory of the averaged generator: half-life in thousands of images (EMA).",
        KIMG,
    )
    ema_rampup: float | None = advanced(
        None,
        "Limit the half-life to this share of the images seen so far; 0 for no limit.",
        Range(0, 1000),
    )
    mbstd_group: int | None = advanced(
        None,
        "Images that the own discriminator compares with each other (minibatch-std group).",
        Range(1, 65536),
    )
    save_every: str = advanced(
        "10min", "How often to save the state between snapshots: 30s, 10min, 1h."
    )
    seed: int = advanced(0, "Seed of everything random.", SEEDS)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)
        parse_duration("--save-every", self.save_every)
        self._check_images()
        self._check_length()

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
    def save_seconds(self) -> float:
        """Seconds from one state to the next."""
        return parse_duration("--save-every", self.save_every)

    @property
    def stage_count(self) -> int:
        """Number of stages in the strategy, including the warm-up."""
        return len(self.members_by_stage)

    @property
    def members_by_stage(self) -> list[int]:
        """Number of backbones in use in each stage."""
        return list(STRATEGIES[self.strategy].in_use(self.k))

    def record(self) -> dict[str, Any]:
        """Return the options that affect the results; length and log may change during a run."""
        from dataclasses import asdict

        record = {**asdict(self), "kimg": None, "stage_kimg": None}
        del record["save_every"], record["log"]
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
