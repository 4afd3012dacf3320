"""The training loop, top to bottom.

Non-saturating logistic loss, lazy R1, horizontal flips, weight average: the base trainer of
Karras et al. 2020a without path-length regularisation, style mixing and augmentation.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from probe.errors import ProbeError
from probe.files import write_text
from probe.generators.base import to_uint8
from probe.generators.snapshot import save_snapshot
from probe.images.base import ImageSource
from probe.images.grid import save_grid
from probe.runtime import autocast, numpy_stream, stream_seed, torch_stream
from probe.training.config import TrainConfig
from probe.training.losses import discriminator_loss, generator_loss, r1_penalty
from probe.training.state import STATE_FILE, TrainState

GRID_COLUMNS = 12
Report = Callable[[dict[str, Any]], None]


def sample_reals(
    source: ImageSource, usable: list[int], resolution: int, config: TrainConfig, start: int
) -> torch.Tensor:
    """Return the batch that begins at image `start` of the infinite shuffled stream.

    Every pass over the data has an order of its own, a function of (seed, pass).

    Returns:
        float32 (batch, 3, R, R) in [-1, 1], each image flipped with probability 1/2 if `mirror`.
    """
    n = len(usable)
    orders: dict[int, Any] = {}
    indices = []
    for position in range(start, start + config.batch):
        turn = position // n
        if turn not in orders:
            orders[turn] = numpy_stream(config.seed, "order", turn).permutation(n)
        indices.append(usable[orders[turn][position % n]])
    batch = source.load(indices, resolution)
    if batch.broken:
        broken = next(iter(batch.broken.values()))
        raise ProbeError(f"{broken.name}: became unreadable during training ({broken.reason}).")
    images = batch.images.float() / 127.5 - 1
    if config.mirror:
        flips = numpy_stream(config.seed, "flip", start).random(len(images)) < 0.5
        images[flips] = images[flips].flip(3)
    return images


def train_step(
    state: TrainState, reals: torch.Tensor, config: TrainConfig, gamma: float, precision: str
) -> dict[str, torch.Tensor]:
    """Do one generator step and one discriminator step, with R1 where it is due.

    Returns:
        The losses of this step, scalars that are still on the device.
    """
    device = reals.device
    step = state.images // config.batch
    # Per-pixel noise and latents draw from torch's global stream: seeded by the image counter.
    torch.manual_seed(stream_seed(config.seed, "step", state.images))
    n = len(reals)

    def latents() -> torch.Tensor:
        return torch.randn(n, config.z_dim, device=device)

    state.generator.train()
    state.discriminator.requires_grad_(False)
    with autocast(device, precision):
        fakes = state.generator(latents())
        loss_g = generator_loss(state.discriminator(fakes))
    state.generator_optimizer.zero_grad(set_to_none=True)
    loss_g.backward()
    state.generator_optimizer.step()

    state.generator.eval()
    state.discriminator.requires_grad_(True)
    with autocast(device, precision):
        with torch.no_grad():
            fakes = state.generator(latents())
        fake_logits = state.discriminator(fakes)
        real_logits = state.discriminator(reals)
        loss_d = discriminator_loss(real_logits, fake_logits)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    loss_d.backward()
    state.discriminator_optimizer.step()
    losses = {
        "Loss/G/loss": loss_g.detach(),
        "Loss/D/loss": loss_d.detach(),
        "Loss/scores/real": real_logits.detach().mean(),
        "Loss/scores/fake": fake_logits.detach().mean(),
    }

    if step % config.r1_interval == 0:
        with autocast(device, precision):
            images = reals.detach().requires_grad_()
            penalty = r1_penalty(images, state.discriminator(images))
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        (penalty * (gamma / 2 * config.r1_interval)).backward()
        state.discriminator_optimizer.step()
        losses["Loss/r1_penalty"] = penalty.detach()
    return losses


@torch.inference_mode()
def draw_grid(state: TrainState, config: TrainConfig, precision: str) -> torch.Tensor:
    """Return the average generator's images of fixed latents, uint8 (96, 3, R, R)."""
    rng = torch_stream(config.seed, "grid")
    z = torch.randn(96, config.z_dim, generator=rng)
    device = next(state.average.parameters()).device
    with autocast(device, precision):
        images = [state.average(part.to(device), noise_mode="const") for part in z.split(16)]
    return to_uint8(torch.cat(images)).cpu()


def train(
    source: ImageSource,
    usable: list[int],
    config: TrainConfig,
    folder: Path,
    *,
    resolution: int,
    device: torch.device,
    precision: str,
    digest: str,
    metadata: dict[str, Any],
    report: Report,
) -> Path:
    """Train a generator on the usable images of a source.

    Args:
        source: the real images.
        usable: the indices that decode.
        config: every option.
        folder: the run directory; a state in it is continued.
        resolution: side of the images, a power of two.
        device: where to compute.
        precision: "fp32" or "bf16".
        digest: identifies images and options, so that a state continues only its own run.
        metadata: plain values to keep in the snapshots.
        report: is given one record per tick.

    Returns:
        The last snapshot's path.

    Raises:
        ProbeError: a loss became NaN or infinite; the last good state is kept.
    """
    torch.manual_seed(stream_seed(config.seed, "init"))
    state = TrainState(config, resolution, device, digest)
    if (folder / STATE_FILE).exists():
        state.load(folder)
    else:
        shown = [usable[i % len(usable)] for i in range(96)]
        save_grid(folder / "reals.png", source.load(shown, resolution).images, columns=GRID_COLUMNS)
    gamma = config.resolved_gamma(resolution)
    total = int(config.kimg * 1000)
    tick_images = int(config.tick * 1000)
    tick = state.images // tick_images
    sums: dict[str, list[torch.Tensor]] = {}
    tick_start, tick_first = time.monotonic(), state.images
    snapshot = folder / f"network-snapshot-{state.images // 1000:06d}.safetensors"

    while state.images < total:
        reals = sample_reals(source, usable, resolution, config, state.images)
        for name, loss in train_step(state, reals.to(device), config, gamma, precision).items():
            sums.setdefault(name, []).append(loss)
        state.images += config.batch
        half_life = config.resolved_ema_kimg() * 1000
        state.update_average(config.batch, min(half_life, state.images * config.ema_rampup))

        done = state.images >= total
        if state.images < (tick + 1) * tick_images and not done:
            continue
        tick += 1
        stats = {name: torch.stack(values) for name, values in sums.items()}
        # The last step's damage is not in the losses yet, but in the weights.
        broken = [name for name, values in stats.items() if not values.isfinite().all()]
        if not state.is_finite():
            broken.append("A weight")
        if broken:
            raise ProbeError(
                f"{broken[0]} became NaN or infinite before kimg {state.images / 1000:.1f}. The "
                f"last good state is in {folder}. Lower --lr or change --gamma."
            )
        seconds = time.monotonic() - tick_start
        record = {
            name: {"num": len(v), "mean": float(v.mean()), "std": float(v.std(correction=0))}
            for name, v in stats.items()
        }
        sec_per_kimg = seconds / (state.images - tick_first) * 1000
        record["Progress/kimg"] = {"num": 1, "mean": state.images / 1000, "std": 0.0}
        record["Timing/sec_per_kimg"] = {"num": 1, "mean": sec_per_kimg, "std": 0.0}
        with (folder / "stats.jsonl").open("a") as f:
            f.write(json.dumps({**record, "timestamp": time.time()}) + "\n")
        report({name: value["mean"] for name, value in record.items()})
        if tick % config.snap == 0 or done:
            kimg = state.images // 1000
            grid = draw_grid(state, config, precision)
            save_grid(folder / f"fakes{kimg:06d}.png", grid, columns=GRID_COLUMNS)
            snapshot = folder / f"network-snapshot-{kimg:06d}.safetensors"
            save_snapshot(
                snapshot, state.average, metadata={**metadata, "kimg": state.images / 1000}
            )
            state.save(folder)
        sums = {}
        tick_start, tick_first = time.monotonic(), state.images
    return snapshot


def write_options(folder: Path, record: dict[str, Any]) -> None:
    """Write `training_options.json`, before anything is computed."""
    write_text(folder / "training_options.json", json.dumps(record, indent=2) + "\n")
