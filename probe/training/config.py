"""Every option of a training run, written once. No torch here: the command line reads this."""

from dataclasses import dataclass
from typing import Any

from probe.errors import UsageError
from probe.options import option

STRATEGIES = ("none", "fixed", "progressive", "greedy")
PRESETS = (
    "auto", "small32", "small64", "cifar", "paper256", "paper256_2fmap", "paper512", "paper1024",
    "stylegan2",
)  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "strategy": STRATEGIES,
    "cfg": PRESETS,
    "aug": ("ada", "diffaugment", "none"),
    "aug_heads": ("ada", "diffaugment", "none"),
    "head_loss": ("sigmoid", "hinge"),
    "d_architecture": ("resnet", "orig"),
    "head_norm": ("equalised", "spectral"),
    "smooth": ("auto", "always", "never"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `probe train`. `None` means: from the preset (see `probe.training.presets`)."""

    strategy: str = option(
        "none", "How the discriminators are chosen: none, fixed, progressive or greedy."
    )
    k: int = option(3, "How many backbones in all.")
    kimg: float | None = option(
        None, "Training length in thousands of real images shown; from the image count if unset."
    )
    stage_kimg: str | None = option(
        None, "Length of each stage instead, warm-up first: '500,4000,1000,1000'."
    )
    patience: int = option(
        0, "End a stage after so many snapshots without a better evaluator distance; 0: never."
    )
    cfg: str = option("auto", f"Preset: {', '.join(PRESETS)}.")
    batch: int | None = option(None, "Images per step, over all processes.")
    resolution: int | None = option(None, "Side in pixels; the images' own unless given.")
    cond: bool = option(False, "Train a conditional generator on the labels of dataset.json.")
    channel_base: int | None = option(None, "Channels at resolution r are channel-base // r, …")
    channel_max: int | None = option(None, "… at most this many.")
    z_dim: int = option(512, "Width of the latent.")
    w_dim: int = option(512, "Width of the intermediate latent.")
    map_layers: int | None = option(None, "Layers of the mapping network.")
    d_architecture: str | None = option(
        None, "Blocks of the own discriminator: resnet, or orig for plain ones."
    )
    lr: float | None = option(
        None,
        "Learning rate of all trained networks (Adam, betas 0 and 0.99), before it is scaled for "
        "lazy regularisation.",
    )
    gamma: float | None = option(None, "R1 weight.")
    r1_interval: int = option(16, "Steps between R1 steps (lazy regularisation).")
    pl_weight: float | None = option(None, "Path-length weight; 0 is off.")
    pl_interval: int = option(4, "Steps between path-length steps.")
    style_mixing: float | None = option(None, "Share of images made from two latents.")
    ema_kimg: float | None = option(None, "Half-life of the weight average.")
    ema_rampup: float | None = option(
        None, "The half-life is at most this share of the images so far; 0 is no limit."
    )
    mbstd_group: int | None = option(None, "Samples per minibatch-std group of the discriminator.")
    mirror: bool = option(True, "Show every image flipped half of the time.")
    aug: str = option("ada", "Augmentation before the own discriminator: ada, diffaugment, none.")
    target: float = option(0.6, "ADA's target for the own discriminator.")
    aug_heads: str = option("ada", "Augmentation before the backbones: ada, diffaugment, none.")
    target_heads: float = option(0.3, "ADA's target for each backbone's discriminator.")
    aug_p: float | None = option(None, "Fixed augmentation probability instead of adapting it.")
    head_loss: str = option("sigmoid", "Loss of the backbones' discriminators: sigmoid or hinge.")
    head_norm: str = option("equalised", "Weights of their heads: equalised or spectral.")
    gamma_heads: float = option(
        0.0,
        "R1 weight of their heads, taken at the backbone's features; 0, as the reference: none.",
    )
    head_cond: bool = option(True, "With --cond, let the heads see the classes, by projection.")
    smooth: str = option(
        "auto",
        "Smooth the backbones' real targets to 0.8: auto (probe accuracy above 0.9, or "
        "diffaugment), always, never.",
    )
    smooth_generator: bool = option(
        True, "Where targets are smoothed, smooth the generator's as well, as the reference does."
    )
    holdout: int = option(0, "Images kept from training, to watch the discriminators overfit.")
    eval_num: int = option(
        5000, "Fakes per snapshot for the evaluator's distances; 0: no evaluation."
    )
    rank_num: int = option(10_000, "Images of each class in a selection, at most.")
    track_probes: bool = option(False, "Score every backbone of the bank at each snapshot.")
    tick: float = option(4, "Thousands of images between two lines of the log.")
    snap: int = option(10, "Ticks between two snapshots.")
    seed: int = option(0, "Seed of every random decision.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(
                    f"--{_flag(name)}: '{value}' is unknown. Use one of {', '.join(choices)}."
                )
        above_zero = ("k", "kimg", "batch", "channel_base", "channel_max", "z_dim", "w_dim",
                      "map_layers", "lr", "r1_interval", "pl_interval", "mbstd_group", "tick",
                      "snap")  # fmt: skip
        from_zero = ("patience", "gamma", "gamma_heads", "pl_weight", "ema_kimg", "ema_rampup",
                     "holdout", "eval_num", "seed")  # fmt: skip
        for names, least in ((above_zero, "above zero"), (from_zero, "zero or above")):
            for name in names:
                value = getattr(self, name)
                if value is not None and (value < 0 or (value == 0 and names is above_zero)):
                    raise UsageError(f"--{_flag(name)}: must be {least}, not {value}.")
        for name in ("style_mixing", "aug_p", "target", "target_heads"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"--{_flag(name)}: must be from 0 to 1, not {value}.")
        for name in ("rank_num", "eval_num"):
            value = getattr(self, name)
            if value < 16 and not (name == "eval_num" and value == 0):
                raise UsageError(f"--{_flag(name)}: {value} images are too few; use 16 or more.")
        r = self.resolution
        if r is not None and (r < 8 or r & (r - 1)):
            raise UsageError(f"--resolution: {r} is not a power of two from 8.")
        if self.stage_kimg is not None:
            if self.kimg is not None:
                raise UsageError("--kimg and --stage-kimg both set the length. Give one of them.")
            self.stage_lengths()

    def stage_lengths(self) -> list[float]:
        """Return `stage_kimg` as numbers, the warm-up first.

        Raises:
            UsageError: not as many numbers as the strategy has stages.
        """
        assert self.stage_kimg is not None
        try:
            lengths = [float(part) for part in self.stage_kimg.split(",")]
        except ValueError:
            lengths = []
        wanted = self.stage_count
        if not lengths or min(lengths) < 0 or sum(lengths) == 0 or len(lengths) != wanted:
            raise UsageError(
                f"--stage-kimg: '{self.stage_kimg}' should be {wanted} numbers with commas "
                f"between them: strategy {self.strategy} has a warm-up and {wanted - 1} "
                "stages."
            )
        return lengths

    @property
    def stage_count(self) -> int:
        """How many stages the strategy has, the warm-up among them."""
        return {"none": 1, "fixed": 2}.get(self.strategy, 1 + self.k)

    @property
    def members_by_stage(self) -> list[int]:
        """How many backbones are in use in each stage."""
        known = {"none": [0], "fixed": [0, self.k]}
        return known.get(self.strategy, list(range(self.k + 1)))

    def record(self) -> dict[str, Any]:
        """Return the options that decide a run's numbers; its length may be changed on the way."""
        from dataclasses import asdict

        record = {**asdict(self), "kimg": None, "stage_kimg": None}
        if self.d_architecture == "resnet":
            del record["d_architecture"]  # once the only one: runs of that time are known again
        return record


def _flag(name: str) -> str:
    return name.replace("_", "-")
