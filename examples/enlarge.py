"""Enlarge photographs fourfold: an image-to-image network with L1 and chosen backbones.

    python examples/enlarge.py my_images/ --backbones mobilenetv2
    python examples/enlarge.py my_images/ --ranking ranking/
    python examples/enlarge.py my_images/                        # L1 alone, to compare

Every image is its own pair: the network sees it at a quarter of its side and has to return it. L1
alone gives blurred images, since a mean of all that is possible has the least error. The backbones
tell blurred images from sharp ones, and their loss is one term more. A GAN's own discriminator is
not needed here: L1 keeps the network near the truth.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import probe
from probe.images.grid import save_grid

FACTOR = 4


class Enlarger(nn.Module):
    """What bicubic enlargement leaves out is added by a few convolutions."""

    def __init__(self, width: int, blocks: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.last = nn.Sequential(
            nn.Conv2d(width, 3 * FACTOR**2, 3, padding=1), nn.PixelShuffle(FACTOR)
        )
        nn.init.zeros_(self.last[0].weight)  # begin with the bicubic enlargement
        nn.init.zeros_(self.last[0].bias)

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        """Map images (N, 3, H, W) to (N, 3, 4 H, 4 W), both in [-1, 1]."""
        x = self.first(small)
        for block in self.blocks:
            x = x + block(x)
        return F.interpolate(small, scale_factor=FACTOR, mode="bicubic") + self.last(x)


def reduce(images: torch.Tensor) -> torch.Tensor:
    """Return images at a quarter of their side."""
    return F.interpolate(images, scale_factor=1 / FACTOR, mode="bicubic", antialias=True)


def make_critics(args: argparse.Namespace) -> probe.Discriminators:
    """Return the discriminators on backbones; none for L1 alone."""
    options = probe.DiscriminatorOptions(augmentation="diffaugment", seed=args.seed)
    if args.ranking:
        return probe.Discriminators.from_ranking(args.ranking, bank=args.bank, options=options)
    if args.backbones:
        return probe.Discriminators.from_names(args.backbones, bank=args.bank, options=options)
    return probe.Discriminators(options)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images."""
    return (images * 127.5 + 128).clamp(0, 255).byte().cpu()


def main() -> None:
    """Train, and write samples.png (small, enlarged and true images in turn) and enlarger.pt."""
    parser = argparse.ArgumentParser(description="Enlarge images fourfold.")
    parser.add_argument("images", type=Path, help="folder or zip of images")
    parser.add_argument("--backbones", help='names in the bank, for example "mobilenetv2"')
    parser.add_argument("--ranking", type=Path, help="folder written by probe rank --out")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--share", type=float, default=0.05, help="of the backbones' loss")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("enlarge"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    source = probe.open_images(args.images)
    images = source.load(range(len(source)), args.side).images  # uint8 (N, 3, side, side)

    network = Enlarger(args.width).to(args.device)
    critics = make_critics(args).to(args.device)
    for_network = torch.optim.Adam(network.parameters(), 2e-4)
    for_critics = critics.optimizer() if critics.backbones else None

    for step in range(args.steps):
        chosen = images[torch.randint(len(images), (args.batch,))].to(args.device)
        truth = chosen.float() / 127.5 - 1
        found = network(reduce(truth))

        if for_critics is not None:
            loss_d = critics.discriminator_loss(truth, found.detach())
            for_critics.zero_grad()
            loss_d.backward()
            for_critics.step()

        l1 = F.l1_loss(found, truth)
        fooled = critics.generator_loss(found)
        for_network.zero_grad()
        (l1 + args.share * fooled).backward()
        for_network.step()

        if step % 500 == 0 or step == args.steps - 1:
            print(f"step {step}: L1 {l1.item():.3f}, backbones {fooled.item():.2f}")

    with torch.no_grad():
        truth = images[:16].to(args.device).float() / 127.5 - 1
        small = reduce(truth)
        shown = (F.interpolate(small, scale_factor=FACTOR), network(small), truth)
    rows = torch.stack([to_bytes(x) for x in shown], dim=1).flatten(0, 1)
    save_grid(args.out / "samples.png", rows, columns=6)
    torch.save(network.state_dict(), args.out / "enlarger.pt")


if __name__ == "__main__":
    main()
