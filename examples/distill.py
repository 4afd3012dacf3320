"""Distil a diffusion model to a single step, with backbones that tell its images from photographs.

    python examples/distill.py my_images/ --backbones mobilenetv2
    python examples/distill.py my_images/ --ranking ranking/
    python examples/distill.py my_images/                         # without backbones, to compare

The teacher is a small flow model (Liu et al. 2023), trained here first: at time t an image is
(1 - t) · image + t · noise, and the network predicts its velocity, noise - image. Walking from
noise to an image takes the teacher 20 steps. The student starts as a copy and learns to get there
in one: near the teacher's images (L1), and as sharp as photographs (the backbones).
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import probe
from probe.images.grid import save_grid

STEPS = 20  # of the teacher


class UNet(nn.Module):
    """A tiny U-Net: images (N, 3, S, S) and times (N,) to velocities (N, 3, S, S)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(self.block(width) for _ in range(3))
        self.up = nn.ModuleList(self.block(width) for _ in range(3))
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    @staticmethod
    def block(width: int) -> nn.Module:
        """Return two convolutions."""
        return nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Predict noise - image."""
        x = self.first(x) + self.time(t[:, None])[:, :, None, None]
        skips = []
        for block in self.down:
            x = x + block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        for block in self.up:
            x = F.interpolate(x, scale_factor=2) + skips.pop()
            x = x + block(x)
        return self.last(x)


def walk(network: nn.Module, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Return images (N, 3, S, S) from noise; from one step gradients may flow."""
    x = noise
    for i in range(steps, 0, -1):
        x = x - network(x, torch.full((len(x),), i / steps, device=x.device)) / steps
    return x


def make_critics(args: argparse.Namespace) -> probe.Discriminators:
    """Return the discriminators on backbones; none without their names."""
    options = probe.DiscriminatorOptions(augmentation="diffaugment", seed=args.seed)
    if args.ranking:
        return probe.Discriminators.from_ranking(args.ranking, bank=args.bank, options=options)
    if args.backbones:
        return probe.Discriminators.from_names(args.backbones, bank=args.bank, options=options)
    return probe.Discriminators(options)


def main() -> None:
    """Train teacher and student; write teacher.png, student.png and student.pt."""
    parser = argparse.ArgumentParser(description="Distil a diffusion model to one step.")
    parser.add_argument("images", type=Path, help="folder or zip of images")
    parser.add_argument("--backbones", help='names in the bank, for example "mobilenetv2"')
    parser.add_argument("--ranking", type=Path, help="folder written by probe rank --out")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--share", type=float, default=0.05, help="of the backbones' loss")
    parser.add_argument("--steps", type=int, default=10_000, help="of teacher and student each")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=32, help="a multiple of 8")
    parser.add_argument("--width", type=int, default=64, help="a multiple of 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("distill"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    source = probe.open_images(args.images)
    images = source.load(range(len(source)), args.side).images  # uint8 (N, 3, side, side)

    def photographs() -> torch.Tensor:
        chosen = images[torch.randint(len(images), (args.batch,))]
        return chosen.to(args.device).float() / 127.5 - 1

    teacher = UNet(args.width).to(args.device)
    for_teacher = torch.optim.Adam(teacher.parameters(), 5e-4)
    for step in range(args.steps):
        reals, t = photographs(), torch.rand(args.batch, device=args.device)
        noise, part = torch.randn_like(reals), t[:, None, None, None]
        loss = F.mse_loss(teacher((1 - part) * reals + part * noise, t), noise - reals)
        for_teacher.zero_grad()
        loss.backward()
        for_teacher.step()
        if step % 500 == 0 or step == args.steps - 1:
            print(f"teacher, step {step}: {loss.item():.3f}")

    student = copy.deepcopy(teacher)
    critics = make_critics(args).to(args.device)
    for_student = torch.optim.Adam(student.parameters(), 2e-4)
    for_critics = critics.optimizer() if critics.backbones else None
    for step in range(args.steps):
        noise = torch.randn(args.batch, 3, args.side, args.side, device=args.device)
        with torch.no_grad():
            target = walk(teacher, noise, STEPS)
        fakes = walk(student, noise, 1)

        if for_critics is not None:
            for_critics.zero_grad()
            critics.discriminator_loss(photographs(), fakes.detach()).backward()
            for_critics.step()

        l1, fooled = F.l1_loss(fakes, target), critics.generator_loss(fakes)
        for_student.zero_grad()
        (l1 + args.share * fooled).backward()
        for_student.step()
        if step % 500 == 0 or step == args.steps - 1:
            print(f"student, step {step}: L1 {l1.item():.3f}, backbones {fooled.item():.2f}")

    with torch.no_grad():
        noise = torch.randn(64, 3, args.side, args.side, device=args.device)
        for name, network, steps in (("teacher", teacher, STEPS), ("student", student, 1)):
            drawn = (walk(network, noise, steps) * 127.5 + 128).clamp(0, 255).byte().cpu()
            save_grid(args.out / f"{name}.png", drawn, columns=8)
    torch.save(student.state_dict(), args.out / "student.pt")


if __name__ == "__main__":
    main()
