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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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


class Gan:
    """The networks and their optimizers."""

    def __init__(
        self, side: int, width: int, critics: probe.Discriminators, device: torch.device | str
    ) -> None:
        self.generator = make_generator(side, width).to(device)
        self.own = make_discriminator(side, width).to(device)
        self.critics = critics.to(device)
        every = [*self.own.parameters(), *critics.parameters()]
        self.for_g = torch.optim.Adam(self.generator.parameters(), 2e-4, (0.5, 0.999))
        self.for_d = torch.optim.Adam(every, 2e-4, (0.5, 0.999))
        # Samples come from a running average of the generator, which is steadier.
        decay = get_ema_multi_avg_fn(0.995)
        self.average = AveragedModel(self.generator, multi_avg_fn=decay, use_buffers=True)


def step(gan: Gan, reals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Train every discriminator, then the generator; returns both losses."""
    fakes = gan.generator(torch.randn(len(reals), Z, 1, 1, device=reals.device))

    # Discriminators: call reals real and fakes fake.
    loss_d = F.softplus(-gan.own(reals)).mean() + F.softplus(gan.own(fakes.detach())).mean()
    loss_d = loss_d + gan.critics.discriminator_loss(reals, fakes.detach())
    gan.for_d.zero_grad()
    loss_d.backward()
    gan.for_d.step()

    # Generator: have every discriminator call its images real.
    loss_g = F.softplus(-gan.own(fakes)).mean() + gan.critics.generator_loss(fakes)
    gan.for_g.zero_grad()
    loss_g.backward()
    gan.for_g.step()
    gan.average.update_parameters(gan.generator)
    return loss_d, loss_g


@torch.no_grad()
def draw(
    generator: nn.Module, count: int, seed: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return uint8 images (count, 3, side, side)."""
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, Z, 1, 1, generator=rng).to(device)
    images = torch.cat([generator.eval()(part) for part in latents.split(256)])
    return (images * 127.5 + 128).clamp(0, 255).byte().cpu()


def main() -> None:
    """Train, and write samples.png, generator.pt and critics.pt."""
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
    gan = Gan(args.side, args.width, make_critics(args), args.device)

    for number in range(args.steps):
        chosen = images[torch.randint(len(images), (args.batch,))].to(args.device)
        loss_d, loss_g = step(gan, chosen.float() / 127.5 - 1)
        if number % 500 == 0 or number == args.steps - 1:
            parts = {name: f"{value.item():.2f}" for name, value in gan.critics.statistics.items()}
            print(f"step {number}: D {loss_d.item():.2f}, G {loss_g.item():.2f}", parts)

    generator = gan.average.module
    save_grid(args.out / "samples.png", draw(generator, 64, args.seed, args.device), columns=8)
    torch.save(generator.state_dict(), args.out / "generator.pt")
    torch.save(gan.critics.state_dict(), args.out / "critics.pt")  # heads only, 5 to 15 MB each


if __name__ == "__main__":
    main()
