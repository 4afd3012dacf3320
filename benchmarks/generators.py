"""Generators: images per second and share of the machine's peak, and the forms that were tried.

    python benchmarks/generators.py [--quick] [--batch 8] [--rounds 2] [--only networks] [--out F]

Networks have random weights and their default sizes at 256 px. Their share of the peak counts the
operations of direct convolutions, so that an algorithm with fewer of them may exceed 100 %. The
forms are pieces of these networks in ways that give the same numbers; the first of each table is
the one that is used, and every other stands here so that the choice can be made again elsewhere.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from common import Record, arguments, interleave, matmul_peak, speedup
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from probe.accel import winograd
from probe.devices import autocast
from probe.generators.networks import stylegan2, stylegan3
from probe.generators.networks.layers import filter2d
from probe.generators.networks.signals import downsample, low_pass_filter, upsample

Forms = dict[str, Callable[[], torch.Tensor]]
CPU = torch.device("cpu")
TAPS = (1, 3, 3, 1)


# ---------------------------------------------------------------------------------------------
# Whole networks
# ---------------------------------------------------------------------------------------------


def networks(side: int) -> dict[str, Callable[[], nn.Module]]:
    """Return name → constructor."""
    shape = (512, 0, 512, side, 3)
    return {
        "StyleGAN2": lambda: stylegan2.Generator(*shape),
        "StyleGAN3-T": lambda: stylegan3.Generator(*shape),
    }


@contextmanager
def direct_convolutions() -> Iterator[None]:
    """Do without minimal filtering."""
    limit, winograd.CHANNELS = winograd.CHANNELS, 10**9
    try:
        yield
    finally:
        winograd.CHANNELS = limit


def gflops(network: nn.Module) -> float:
    """Return the operations of one image in billions, with direct convolutions."""
    with FlopCounterMode(display=False) as counter, direct_convolutions():
        network(torch.randn(1, 512))
    return counter.get_total_flops() / 1e9


def measure_networks(record: Record, side: int, args: argparse.Namespace) -> None:
    """Time every network in both precisions against itself with direct convolutions."""
    peaks = {precision: matmul_peak(precision) for precision in ("fp32", "bf16")}
    record.values["peak_gflops"] = peaks
    rows = []
    for name, build in networks(side).items():
        torch.manual_seed(0)
        network = build().eval().requires_grad_(False).to(memory_format=torch.channels_last)
        operations = gflops(network)
        z = torch.randn(args.batch, 512)

        def plain(network: nn.Module = network, z: torch.Tensor = z) -> torch.Tensor:
            with direct_convolutions():
                return network(z)

        for precision, peak in peaks.items():
            with autocast(CPU, precision):
                network(z[:1])  # first calls compile kernels
                sides = {"ours": lambda n=network, z=z: n(z), "direct": plain}
                times = interleave(sides, args.rounds, warmups=0)
            rate = args.batch / median(times["ours"])
            rows.append(
                [
                    name,
                    precision,
                    rate,
                    args.batch / median(times["direct"]),
                    str(speedup(times["direct"], times["ours"])),
                    operations,
                    f"{rate * operations / peak:.0%}",
                ]
            )
            record.values[f"{name} {precision}"] = times
    columns = ["network", "precision", "images/s", "direct", "times faster", "GFLOP", "of peak"]
    record.table(f"{side} px, batches of {args.batch}", columns, rows)
    record.table(
        "Peak of square matrix products",
        ["precision", "GFLOP/s"],
        [[precision, peak] for precision, peak in peaks.items()],
    )


# ---------------------------------------------------------------------------------------------
# Convolutions
# ---------------------------------------------------------------------------------------------


def nhwc(x: torch.Tensor) -> torch.Tensor:
    """Return x in channels-last."""
    return x.contiguous(memory_format=torch.channels_last)


def plain_forms(c: int, side: int) -> Forms:
    """A 3x3 convolution of C to C channels."""
    x, weight = torch.randn(1, c, side, side), torch.randn(c, c, 3, 3)
    fast_x, fast_weight = nhwc(x), nhwc(weight)
    return {
        "chosen": lambda: winograd.convolve(fast_x, fast_weight, 1),
        "minimal filtering": lambda: winograd.winograd(fast_x, fast_weight, 1),
        "direct, channels-last": lambda: F.conv2d(fast_x, fast_weight, padding=1),
        "direct, default layout": lambda: F.conv2d(x, weight, padding=1),
        "direct, bfloat16": lambda: F.conv2d(
            fast_x.bfloat16(), fast_weight.bfloat16(), padding=1
        ).float(),
    }


def grouped(x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Modulated convolution with a weight per sample, one group each."""
    n, c, h, w = x.shape
    weight = weight * styles[:, None, :, None, None]
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = F.conv2d(x.reshape(1, n * c, h, w), weight.flatten(0, 1), padding=1, groups=n)
    return x.view(n, -1, h, w)


def modulated(x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, **how: Any) -> Any:
    """Run probe's form, and the scaling of channels that its layers do in one go with the rest."""
    x, norms = stylegan2.modulated_conv2d(x, weight, styles, **how)
    return x if norms is None else x * norms[:, :, None, None]


def modulated_forms(c: int, side: int) -> Forms:
    """A modulated 3x3 convolution of four samples."""
    x, weight, styles = torch.randn(4, c, side, side), torch.randn(c, c, 3, 3), torch.randn(4, c)
    fast_x, fast_weight = nhwc(x), nhwc(weight)
    return {
        "factored": lambda: modulated(fast_x, fast_weight, styles),
        "grouped": lambda: grouped(x, weight, styles),
    }


def composed(x: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """Up-sample by four 3x3 convolutions, one for each position in a pixel of the input."""
    x = F.pixel_shuffle(F.conv2d(x, phases, padding=2), 2)
    return x[:, :, 2:-2, 2:-2]


def compose(weight: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Merge (O, I, 3, 3) with a low-pass (4, 4) to (4·O, I, 3, 3)."""
    o, i = weight.shape[:2]
    kernel = F.conv2d(weight.reshape(-1, 1, 3, 3), 4 * f[None, None], padding=3)
    kernel = kernel.view(o, i, 3, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).flip(4, 5)
    return kernel.reshape(4 * o, i, 3, 3)


def separable(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Transposed convolution, then the low-pass along one axis after the other."""
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    f = (x.new_tensor(TAPS) / 4).expand(x.shape[1], 1, 1, 4)
    x = F.conv2d(x, f, groups=len(f), padding=(0, 1))
    return F.conv2d(x, f.mT, groups=len(f), padding=(1, 0))


def doubling_forms(c: int, side: int) -> Forms:
    """StyleGAN2's convolution of C to C/2 channels at twice the size."""
    x, weight = nhwc(torch.randn(1, c, side, side)), nhwc(torch.randn(c // 2, c, 3, 3))
    f, ones = filter2d(TAPS), torch.ones(1, c)
    ready = nhwc(compose(weight, f))
    return {
        "transposed, then 4x4": lambda: modulated(x, weight, ones, demodulate=False, up_filter=f),
        "transposed, then 4 + 4": lambda: separable(x, weight),
        "one of 6x6 in phases": lambda: composed(x, nhwc(compose(weight, f))),
        "the same, composed before": lambda: composed(x, ready),
    }


# ---------------------------------------------------------------------------------------------
# StyleGAN3's filtered non-linearity
# ---------------------------------------------------------------------------------------------


def bend(x: torch.Tensor) -> torch.Tensor:
    """The non-linearity itself."""
    return F.leaky_relu_(x.clamp_(-1280, 256), 0.2)


def matrix(filtered: Callable[[torch.Tensor], torch.Tensor], size: int) -> torch.Tensor:
    """Return a linear map along one axis as (out, size): what it does to unit vectors."""
    response = filtered(torch.eye(size).expand(1, 1, size, size))
    return response[0, 0].T


def banded(a: torch.Tensor, m: int) -> list[tuple[slice, slice, torch.Tensor]]:
    """Split a band matrix into blocks of m rows with the columns that matter to them."""
    blocks = []
    for start in range(0, len(a), m):
        rows = a[start : start + m]
        used = rows.any(dim=0).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((slice(start, start + m), columns, rows[:, columns].contiguous()))
    return blocks


def apply_banded(x: torch.Tensor, blocks: list[Any], size: int) -> torch.Tensor:
    """Multiply (H, W, C) by a band matrix along W."""
    y = x.new_empty(len(x), size, x.shape[2])
    for rows, columns, block in blocks:
        y[:, rows] = block.to(x.dtype) @ x[:, columns]
    return y


def phased(x: torch.Tensor, f: torch.Tensor, up: int, cut: int) -> torch.Tensor:
    """Up-sample (N, C, H, W) along H by `up` convolutions at the low rate; cut the borders."""
    n, c, h, w = x.shape
    taps = len(f) // up
    y = x.new_empty(n, h + taps - 1, up, w, c)
    for phase, kernel in enumerate(f.view(taps, up).T.flip(1)):
        part = F.conv2d(x, kernel.expand(c, 1, 1, taps).mT, padding=(taps - 1, 0), groups=c)
        y[:, :, phase] = part.permute(0, 2, 3, 1)
    return y.view(n, -1, w, c)[:, cut:-cut].permute(0, 3, 1, 2)


def nonlinear_forms(c: int, side: int) -> Forms:
    """Up by 2, leaky ReLU, down by 2, on C channels, without the borders."""
    x = torch.randn(1, c, side, side)
    fast, pixels = nhwc(x), x[0].permute(1, 2, 0).contiguous()
    f = torch.hann_window(14)[1:-1].clone()
    f = f / f.sum()
    pad = (6, 5)

    def whole(x: torch.Tensor) -> torch.Tensor:
        return downsample(bend(upsample(x, f, 2, pad, 4)), f, 2)

    def bfloat16() -> torch.Tensor:
        return whole(fast.bfloat16()).float()

    def square() -> torch.Tensor:
        f2 = torch.outer(f, f).expand(c, 1, -1, -1)
        up = F.conv_transpose2d(fast, f2 * 4, stride=2, padding=5, groups=c)
        return F.conv2d(bend(up), f2, stride=2, groups=c)

    def in_phases() -> torch.Tensor:
        up = phased(phased(fast, f * 2, 2, 5).mT, f * 2, 2, 5).mT
        return downsample(bend(nhwc(up)), f, 2)

    wide = upsample(x[:, :1], f, 2, pad, 4).shape[2]
    a = matrix(
        lambda e: (
            F.pad(
                F.conv_transpose2d(e, f[None, None, :, None] * 2, stride=(2, 1)), (0, 0, -5, -5)
            ).mT
        ),
        side,
    )
    b = matrix(lambda e: F.conv2d(e, f[None, None, :, None], stride=(2, 1)).mT, wide)
    a_blocks, b_blocks = banded(a, 32), banded(b, 16)

    def dense() -> torch.Tensor:
        return b @ (bend(a @ x @ a.T) @ b.T)

    def blocks() -> torch.Tensor:
        y = apply_banded(pixels, a_blocks, len(a)).transpose(0, 1)
        y = bend(apply_banded(y, a_blocks, len(a)))
        y = apply_banded(y, b_blocks, len(b)).transpose(0, 1)
        return apply_banded(y, b_blocks, len(b)).permute(2, 0, 1)[None]

    return {
        "1-D filters, channels-last": lambda: whole(fast),
        "default layout": lambda: whole(x),
        "bfloat16": bfloat16,
        "2-D filters": square,
        "up in phases": in_phases,
        "dense matrices": dense,
        "band matrices": blocks,
    }


def radial_forms(c: int, side: int) -> Forms:
    """Configuration R's radial low-pass, down by 2."""
    x = torch.randn(1, c, side, side)
    fast = nhwc(x)
    f = low_pass_filter(12, 64, 20, 512, radial=True)
    u, s, v = torch.linalg.svd(f.double())
    rank = int((s > 1e-7 * s[0]).sum())
    columns = (u[:, :rank] * s[:rank]).T.float()[:, None, None, :, None]
    rows = v[:rank].float()[:, None, None, None]

    def low_rank() -> torch.Tensor:
        parts = (
            F.conv2d(
                F.conv2d(fast, r.expand(c, 1, 1, -1), stride=(1, 2), groups=c),
                k.expand(c, 1, -1, 1),
                stride=(2, 1),
                groups=c,
            )
            for r, k in zip(rows[:, 0], columns[:, 0], strict=True)
        )
        return sum(parts, torch.zeros(()))

    return {
        "2-D, channels-last": lambda: downsample(fast, f, 2),
        "2-D, default layout": lambda: downsample(x, f, 2),
        f"{rank} pairs of 1-D": low_rank,
    }


def measure_forms(record: Record, args: argparse.Namespace) -> None:
    """Time the forms of each piece against the one that is used."""
    shrink = 8 if args.quick else 1
    cases: list[tuple[str, Callable[[int, int], Forms], int, int]] = [
        ("3x3 convolution", plain_forms, 512, 148),
        ("3x3 convolution", plain_forms, 256, 128),
        ("3x3 convolution", plain_forms, 128, 256),
        ("Modulated convolution", modulated_forms, 512, 64),
        ("Doubling convolution", doubling_forms, 512, 64),
        ("Doubling convolution", doubling_forms, 256, 128),
        ("Filtered non-linearity", nonlinear_forms, 48, 150),
        ("Radial filter", radial_forms, 32, 306),
    ]
    for title, forms, channels, side in cases:
        torch.manual_seed(0)
        channels, side = channels // shrink, side // shrink
        sides = forms(channels, side)
        outputs = {name: work() for name, work in sides.items()}
        first = next(iter(sides))
        times = interleave(sides, 2 if args.quick else 5)
        rows = [
            [
                name,
                1e3 * median(times[name]),
                str(speedup(times[name], times[first])),
                f"{float((outputs[name] - outputs[first]).std() / outputs[first].std()):.0e}",
            ]
            for name in sides
        ]
        where = f"{title}, {channels} channels, {side} px"
        record.table(where, ["form", "ms", "times the first", "difference"], rows)
        record.values[where] = times


def main() -> None:
    parser = arguments(__doc__, "generators")
    parser.add_argument("--batch", type=int, help="images at a time (8; quick 1)")
    parser.add_argument("--rounds", type=int, help="of each network (2; quick 1)")
    parser.add_argument("--only", choices=["networks", "forms"], help="one half")
    args = parser.parse_args()
    args.batch = args.batch or (1 if args.quick else 8)
    args.rounds = args.rounds or (1 if args.quick else 2)
    record = Record("generators", "Generators: speed, share of the peak, and the forms tried")
    side = 32 if args.quick else 256
    record.settings = {"side": side, "batch": args.batch, "rounds": args.rounds}
    with torch.inference_mode():
        if args.only != "forms":
            measure_networks(record, side, args)
        if args.only != "networks":
            measure_forms(record, args)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
