"""A step against backbones: `probe.Discriminators` and the package `vision_aided_loss` 0.1.0.

    pip install --no-deps vision_aided_loss==0.1.0 gdown antialiased_cnns ftfy regex
    python benchmarks/critics.py [--quick] [--batch 8] [--rounds 7] [--out FILE.json]

Both sides compute a discriminator's and a generator's loss with their gradients on equal images of
256 px, against CLIP ViT-B/32 with a multi-level head and DiffAugment, as pix2pix-turbo does.
Weights are random: no arithmetic depends on them. The old package has no mixed precision on a CPU,
so ours is timed in float32 and in bfloat16 under autocast. Without the package, ours alone.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import torch
from common import Record, arguments, interleave, speedup

import probe
from probe.bank.spec import BackboneSpec, Weights

OLD = "vision_aided_loss"
SIDE, TWICE = 256, 2.0
CLIP = BackboneSpec(
    name="clip", source="open_clip", model="ViT-B-32-quickgelu", weights=Weights(random=0),
    role="control", input=224, taps=(3, 7), mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711), task="none", data="none", license="none",
)  # fmt: skip

Images = tuple[torch.Tensor, torch.Tensor]


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "critics")
    parser.add_argument("--batch", type=int, help="images of each class (8)")
    parser.add_argument("--rounds", type=int, help="steps of each side (7)")
    args = parser.parse_args()
    for name, usual, tiny in (("batch", 8, 1), ("rounds", 7, 1)):
        if getattr(args, name) is None:
            setattr(args, name, tiny if args.quick else usual)
    return args


def make_ours(images: Images, dtype: torch.dtype) -> Callable[[], None]:
    """Return a step of ours, under autocast if `dtype` is not float32."""
    real, fake = images
    options = probe.DiscriminatorOptions(loss="sigmoid", augmentation="diffaugment")
    critics = probe.Discriminators(options)
    critics.add_entry(CLIP, offline=True)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def step() -> None:
        with autocast():
            loss = critics.discriminator_loss(real, fake)
        loss.backward()
        drawn = fake.clone().requires_grad_()
        with autocast():
            loss = critics.generator_loss(drawn)
        loss.backward()

    return step


def make_old(images: Images) -> Callable[[], None]:
    """Return a step of the old package, whose CLIP is made instead of downloaded."""
    real, fake = images
    package = importlib.import_module(OLD)
    loader = importlib.import_module(f"{OLD}.CLIP.clip.clip")
    model = importlib.import_module(f"{OLD}.CLIP.clip.model")
    loader.load = lambda *_, **__: (
        model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).float(), None,
    )  # fmt: skip
    critic = package.Discriminator(
        cv_type="clip", output_type="conv_multi_level", loss_type="multilevel_sigmoid_s",
        device="cpu",
    )  # fmt: skip

    def step() -> None:
        loss = critic(real, for_real=True).mean() + critic(fake, for_real=False).mean()
        loss.backward()
        drawn = fake.clone().requires_grad_()
        critic(drawn, for_G=True).mean().backward()

    return step


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    images = (
        torch.rand(args.batch, 3, SIDE, SIDE) * 2 - 1,
        torch.rand(args.batch, 3, SIDE, SIDE) * 2 - 1,
    )
    sides = {
        "ours, float32": make_ours(images, torch.float32),
        "ours, bfloat16": make_ours(images, torch.bfloat16),
    }
    if find_spec(OLD) is not None:
        sides[OLD] = make_old(images)
    times = interleave(sides, args.rounds)
    record = Record("critics", "A step against CLIP, and the package vision_aided_loss")
    record.settings = {"batch": args.batch, "side": SIDE}
    rows = []
    for name, seconds in times.items():
        ratio = speedup(times[OLD], seconds) if OLD in times else None
        rows.append([name, median(seconds), "" if ratio is None else str(ratio)])
        if ratio is not None and name != OLD:
            what = f"{name}, times as fast as the old package"
            record.check(what, ratio.value, at_least=TWICE if "bfloat16" in name else 1.0)
    record.table(
        f"A step of {args.batch} images of each class", ["side", "s", "times as fast"], rows
    )
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    sys.exit(main())
