"""The DCGAN of dcgan.py with Hugging Face accelerate, on any number of processes.

    pip install accelerate
    torchrun --nproc-per-node 2 examples/dcgan_accelerate.py my_images/ --backbones mobilenetv2
    python examples/dcgan_accelerate.py my_images/ --backbones mobilenetv2    # a single process

`prepare` wraps every network for its processes. The discriminators' losses go through the wrappers,
which average the gradients; the generator's go through the networks inside, because it takes no
gradient for the discriminators. The random numbers of `critics` are drawn for all processes
together, so that augmentations do not depend on how many there are.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from dcgan import Gan, Z, draw, make_critics
from torch.nn import functional as F

import probe
from probe.images.grid import save_grid


def main() -> None:
    """Train, and write samples.png, generator.pt and critics.pt."""
    parser = argparse.ArgumentParser(description="A DCGAN on several processes.")
    parser.add_argument("images", type=Path, help="folder or zip of images")
    parser.add_argument("--backbones", help='names in the bank, for example "mobilenetv2"')
    parser.add_argument("--ranking", type=Path, help="folder written by probe rank --out")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--k", type=int, default=2, help="how many of the ranking")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16, help="images per process")
    parser.add_argument("--side", type=int, default=64, help="a power of two")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--out", type=Path, default=Path("dcgan"))
    args = parser.parse_args()
    if not (args.backbones or args.ranking):
        parser.error("name --backbones or a --ranking; dcgan.py trains without")
    args.out.mkdir(parents=True, exist_ok=True)

    accelerator = Accelerator(cpu=args.cpu)
    torch.manual_seed(args.seed)
    source = probe.open_images(args.images)
    images = source.load(range(len(source)), args.side).images  # uint8 (N, 3, side, side)
    gan = Gan(args.side, args.width, make_critics(args), accelerator.device)
    generator, own, critics, for_g, for_d = accelerator.prepare(
        gan.generator, gan.own, gan.critics, gan.for_g, gan.for_d
    )
    torch.manual_seed(args.seed + accelerator.process_index)  # other images in each process

    for step in range(args.steps):
        chosen = images[torch.randint(len(images), (args.batch,))].to(accelerator.device)
        reals = chosen.float() / 127.5 - 1
        fakes = generator(torch.randn(args.batch, Z, 1, 1, device=accelerator.device))

        # Discriminators. One pass through a wrapper for each backward pass: reals and fakes go in
        # together.
        on_reals, on_fakes = own(torch.cat([reals, fakes.detach()])).chunk(2)
        loss_d = F.softplus(-on_reals).mean() + F.softplus(on_fakes).mean()
        loss_d = loss_d + critics(reals, fakes.detach())
        for_d.zero_grad()
        accelerator.backward(loss_d)
        for_d.step()

        # Generator, with the GAN's own discriminator fixed; `critics` fixes its heads by itself.
        gan.own.requires_grad_(False)
        loss_g = F.softplus(-gan.own(fakes)).mean() + gan.critics.generator_loss(fakes)
        for_g.zero_grad()
        accelerator.backward(loss_g)
        for_g.step()
        gan.own.requires_grad_(True)
        gan.average.update_parameters(gan.generator)

        if step % 500 == 0 or step == args.steps - 1:
            accelerator.print(f"step {step}: D {loss_d.item():.2f}, G {loss_g.item():.2f}")

    print(f"process {accelerator.process_index}: {fingerprint(gan):.6f}")
    if accelerator.is_main_process:
        drawn = draw(gan.average.module, 64, args.seed, accelerator.device)
        save_grid(args.out / "samples.png", drawn, columns=8)
        torch.save(gan.average.module.state_dict(), args.out / "generator.pt")
        torch.save(gan.critics.state_dict(), args.out / "critics.pt")
    accelerator.end_training()


def fingerprint(gan: Gan) -> float:
    """Return a number that all processes share while their networks are equal."""
    networks = (gan.generator, gan.own, gan.critics)
    return sum(p.detach().double().abs().sum().item() for n in networks for p in n.parameters())


if __name__ == "__main__":
    main()
