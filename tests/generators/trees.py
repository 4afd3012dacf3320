"""Module trees of Projected GAN and R3GAN, whose modules are pickled by their classes' names.

They hold what genuine ones do and compute nothing. The conditional FastGAN is written from its
description: no genuine file of one was at hand.
"""

import torch
from generators.pickles import named
from torch import nn
from torch.nn.utils import spectral_norm

SHARES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}


def tree(path, modules=(), parameters=(), buffers=(), **attributes):
    """Return an object of the class that stands for a name."""
    made = named(path)()
    for name, value in attributes.items():
        setattr(made, name, value)
    for name, tensor in dict(parameters).items():
        made.register_parameter(name, nn.Parameter(tensor))
    for name, tensor in dict(buffers).items():
        made.register_buffer(name, tensor)
    for name, module in dict(modules).items():
        made.add_module(name, module)
    return made


def trained(network):
    """Return a network in evaluation whose every number is one that matters."""
    with torch.no_grad():
        for module in network.modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is None or not tensor.is_floating_point():
                    continue
                if name.endswith("var"):
                    tensor.uniform_(0.1, 0.4)
                elif tensor.shape == (1,) or name.endswith(("bias", "Bias", "mean")):
                    tensor.normal_(0, 0.2)
                elif name == "weight" and tensor.ndim == 1:
                    tensor.normal_(1, 0.3)
            for hook in module._forward_pre_hooks.values():
                for _ in range(2):  # near the largest singular value, and not at it
                    module.weight = hook.compute_weight(module, do_power_iteration=True).detach()
    return network.eval().requires_grad_(False)


# --- Projected GAN


def _conv(in_channels, out_channels, kernel, bias=False):
    padding = 1 if kernel == 3 else 0
    return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, 1, padding, bias=bias))


def _gate():
    return tree("pg_modules.blocks.GLU")


def _noise():
    return tree("pg_modules.blocks.NoiseInjection", parameters={"weight": torch.zeros(1)})


def _up(in_channels, out_channels, lite):
    def step(channels):
        noise = [] if lite else [_noise()]
        return [
            _conv(channels, 2 * out_channels, 3),
            *noise,
            nn.BatchNorm2d(2 * out_channels),
            _gate(),
        ]

    steps = step(in_channels) + ([] if lite else step(out_channels))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), *steps)


def _class_norm(channels, z_dim):
    linears = {n: spectral_norm(nn.Linear(z_dim, channels)) for n in ("gain", "bias")}
    buffers = {"stored_mean": torch.zeros(channels), "stored_var": torch.ones(channels)}
    return tree("pg_modules.blocks.CCBN", linears, (), buffers, output_size=channels, eps=1e-5)


def _class_up(in_channels, out_channels, lite, z_dim):
    """The noise is one layer, which the block uses twice."""
    modules = {"up": nn.Upsample(scale_factor=2, mode="nearest")}
    if lite:
        modules |= {"conv": _conv(in_channels, 2 * out_channels, 3)}
        modules |= {"bn": _class_norm(2 * out_channels, z_dim)}
    else:
        modules |= {"conv1": _conv(in_channels, 2 * out_channels, 3)}
        modules |= {"conv2": _conv(out_channels, 2 * out_channels, 3)}
        modules |= {f"bn{i}": _class_norm(2 * out_channels, z_dim) for i in (1, 2)}
        modules["noise"] = _noise()
    kind = "UpBlockSmallCond" if lite else "UpBlockBigCond"
    return tree(f"pg_modules.blocks.{kind}", modules | {"act": _gate()})


def _excitation(small, large):
    main = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), _conv(small, large, 4), tree("pg_modules.blocks.Swish"),
        _conv(large, large, 1), nn.Sigmoid(),
    )  # fmt: skip
    return tree("pg_modules.blocks.SEBlock", {"main": main})


def fastgan(resolution=128, ngf=4, lite=False, c_dim=0, z_dim=12, img_channels=3):
    """Return Projected GAN's G_ema."""
    torch.manual_seed(resolution + ngf + c_dim)
    channels = {r: int(s * ngf) for r, s in SHARES.items() if r <= max(resolution, 256)}
    first = spectral_norm(nn.ConvTranspose2d(z_dim, 2 * channels[4], 4, 1, 0, bias=False))
    init = nn.Sequential(first, nn.BatchNorm2d(2 * channels[4]), _gate())
    modules = {"init": tree("pg_modules.blocks.InitLayer", {"init": init})}
    for r in list(channels)[1:]:
        widths = channels[r // 2], channels[r], lite
        modules[f"feat_{r}"] = _class_up(*widths, z_dim) if c_dim else _up(*widths)
    for r in (64, 128, 256, 512):
        if r in channels:
            modules[f"se_{r}"] = _excitation(channels[r // 16], channels[r])
    modules["to_big"] = _conv(channels[resolution], img_channels, 3, bias=True)
    if c_dim:
        modules["embed"] = nn.Embedding(c_dim, z_dim)
    kind = "FastganSynthesisCond" if c_dim else "FastganSynthesis"
    synthesis = tree(f"pg_modules.networks_fastgan.{kind}", modules,
                     img_resolution=resolution, z_dim=z_dim)  # fmt: skip
    mapping = tree("pg_modules.networks_fastgan.DummyMapping")
    network = tree(
        "pg_modules.networks_fastgan.Generator", {"mapping": mapping, "synthesis": synthesis},
        z_dim=z_dim, c_dim=c_dim, w_dim=0, img_resolution=resolution, img_channels=img_channels,
    )  # fmt: skip
    return trained(network)


# --- R3GAN


def _convolution(in_channels, out_channels, kernel=1, groups=1):
    layer = nn.Conv2d(
        in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False
    )
    return tree("R3GAN.Networks.Convolution", {"Layer": layer})


def _activation(channels):
    return tree("R3GAN.FusedOperators.BiasedActivationCUDA", (), {"Bias": torch.zeros(channels)})


def _block(width, expanded, groups, kernel):
    return tree("R3GAN.Networks.ResidualBlock", {
        "LinearLayer1": _convolution(width, expanded),
        "LinearLayer2": _convolution(expanded, expanded, kernel, groups),
        "LinearLayer3": _convolution(expanded, width),
        "NonLinearity1": _activation(expanded),
        "NonLinearity2": _activation(expanded),
    })  # fmt: skip


def _transition(before, width, taps):
    line = torch.tensor([a + b for a, b in zip([*taps, 0], [0, *taps], strict=True)])
    kernel = torch.outer(line, line) / line.sum() ** 2
    resampler = tree("R3GAN.Resamplers.InterpolativeUpsamplerCUDA", buffers={"Kernel": kernel})
    linear = {} if before == width else {"LinearLayer": _convolution(before, width)}
    return tree("R3GAN.Networks.UpsampleLayer", {"Resampler": resampler} | linear)


def r3gan(
    widths=(12, 12, 8, 4), cardinalities=(4, 3, 8, 2), blocks=(2, 1, 3, 1), expansion=2, z_dim=6,
    classes=0, embedding=5, kernel=3, taps=(1.0, 2.0, 1.0), img_channels=3,
):  # fmt: skip
    """Return R3GAN's G_ema."""
    torch.manual_seed(sum(widths) + classes)
    in_features = z_dim + (embedding if classes else 0)
    stages = nn.ModuleList()
    for s, (width, groups, count) in enumerate(zip(widths, cardinalities, blocks, strict=True)):
        if s == 0:
            entry = tree(
                "R3GAN.Networks.GenerativeBasis",
                {"LinearLayer": nn.Linear(in_features, width, bias=False)},
                {"Basis": torch.randn(width, 4, 4)},
            )
        else:
            entry = _transition(widths[s - 1], width, taps)
        inner = [_block(width, width * expansion, groups, kernel) for _ in range(count)]
        dtype = torch.bfloat16 if s == len(widths) - 1 else torch.float32
        layers = nn.ModuleList([entry, *inner])
        stages.append(tree("R3GAN.Networks.GeneratorStage", {"Layers": layers}, DataType=dtype))
    modules = {"MainLayers": stages, "AggregationLayer": _convolution(widths[-1], img_channels)}
    if classes:
        modules["EmbeddingLayer"] = nn.Linear(classes, embedding, bias=False)
    network = tree(
        "training.networks.Generator", {"Model": tree("R3GAN.Networks.Generator", modules)},
        z_dim=z_dim, c_dim=classes, img_resolution=4 * 2 ** (len(widths) - 1),
    )  # fmt: skip
    return trained(network)
