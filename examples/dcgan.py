"""Train a DCGAN on a folder of images against the backbones that see it best.

    python examples/dcgan.py my_images/ --backbones mobilenetv2
    python examples/dcgan.py my_images/ --ranking ranking/
    python examples/dcgan.py my_images/                        # the plain GAN, to compare

It is an ordinary PyTorch loop: a generator, a discriminator of its own, two optimizers. What probe
adds are the lines that use `critics`.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import probe
from probe.images.grid import save_grid

Z = 64


def make_generator(side: int, width: int) -> nn.Module:
    """Return a network from latents (N, Z, 1, 1) to images (N, 3, side, side) in [-1, 1]."""
    channels = width * side // 8
    layers = [nn.ConvTranspose2d(Z, channels, 4), nn.BatchNorm2d(channels), nn.ReLU()]
    while channels > width:  # from 4x4 to half the side
        layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1)]
        layers += [nn.BatchNorm2d(channels // 2), nn.ReLU()]
        channels //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1), nn.Tanh())


def make_discriminator(side: int, width: int) -> nn.Module:
    """Return the GAN's own discriminator: images to logits (N, 1)."""
    layers, channels, given = [], 3, width
    while side > 4:
        layers += [nn.utils.spectral_norm(nn.Conv2d(channels, given, 4, 2, 1)), nn.LeakyReLU(0.2)]
        channels, given, side = given, given * 2, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, 1))


def make_critics(args: argparse.Namespace) -> probe.Discriminators:
    """Return the discriminators on backbones; none for the plain GAN."""
    options = probe.DiscriminatorOptions(augmentation="diffaugment", seed=args.seed)
    where = {"bank": args.bank, "options": options}
    if args.ranking:
        return probe.Discriminators.from_ranking(args.ranking, k=args.k, **where)
    if args.backbones:
        return probe.Discriminators.from_names(args.backbones, **where)
    return probe.Discriminators(options)


def main() -> None:
    """Train, and write samples.png and generator.pt."""
    parser = argparse.ArgumentParser(description="A DCGAN against chosen backbones.")
    parser.add_argument("images", type=Path, help="folder or zip of images")
    parser.add_argument("--backbones", help='names in the bank, for example "mobilenetv2"')
    parser.add_argument("--ranking", type=Path, help="folder written by probe rank --out")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--k", type=int, default=2, help="how many of the ranking")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="a power of two")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("dcgan"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    source = probe.open_images(args.images)
    images = source.load(range(len(source)), args.side).images  # uint8 (N, 3, side, side)

    generator = make_generator(args.side, args.width).to(args.device)
    own = make_discriminator(args.side, args.width).to(args.device)
    critics = make_critics(args).to(args.device)

    for_g = torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999))
    for_d = torch.optim.Adam([*own.parameters(), *critics.parameters()], 2e-4, (0.5, 0.999))

    for step in range(args.steps):
        chosen = images[torch.randint(len(images), (args.batch,))].to(args.device)
        reals = chosen.float() / 127.5 - 1
        fakes = generator(torch.randn(args.batch, Z, 1, 1, device=args.device))

        # Discriminators: call reals real and fakes fake.
        loss_d = F.softplus(-own(reals)).mean() + F.softplus(own(fakes.detach())).mean()
        loss_d = loss_d + critics.discriminator_loss(reals, fakes.detach())
        for_d.zero_grad()
        loss_d.backward()
        for_d.step()

        # Generator: have every discriminator call its images real.
        loss_g = F.softplus(-own(fakes)).mean() + critics.generator_loss(fakes)
        for_g.zero_grad()
        loss_g.backward()
        for_g.step()

        if step % 500 == 0 or step == args.steps - 1:
            parts = {name: f"{value.item():.2f}" for name, value in critics.statistics.items()}
            print(f"step {step}: D {loss_d.item():.2f}, G {loss_g.item():.2f}", parts)

    generator.eval()
    with torch.no_grad():
        samples = generator(torch.randn(64, Z, 1, 1, device=args.device))
    save_grid(args.out / "samples.png", ((samples + 1) * 127.5).byte().cpu(), columns=8)
    torch.save(generator.state_dict(), args.out / "generator.pt")
    torch.save(critics.state_dict(), args.out / "critics.pt")  # heads only, 5 to 15 MB each


if __name__ == "__main__":
    main()
