"""Write generators in other programs' formats, one function for each line of `FORMATS`."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from probe.files import atomic_path
from probe.generators.files import rosinality
from probe.generators.files.companions import DISCRIMINATOR

# Arguments of the constructors in the StyleGAN2-ADA family, which refuse any others.
MAPPING = (
    "num_layers", "embed_features", "layer_features", "activation", "lr_multiplier", "w_avg_beta",
)  # fmt: skip
SYNTHESIS = (
    "channel_base", "channel_max", "num_fp16_res", "architecture", "resample_filter", "use_noise",
    "activation", "conv_clamp", "fp16_channels_last",
)  # fmt: skip
# Always written: StyleGAN2-ADA's own program and StyleGAN3's have different defaults.
FLOAT32 = {"num_fp16_res": 0, "conv_clamp": None}


def save_rosinality(path: Path, generator: Any, discriminator: Any) -> list[str]:
    """Write a StyleGAN2 for rosinality's programs, pSp, e4e and others.

    Args:
        path: ends in .pt.
        generator: a StyleGAN2.
        discriminator: its discriminator, or None.

    Returns:
        What the user must know before loading it.

    Raises:
        CheckpointError: if their network cannot represent this one; says why.
    """
    state = rosinality.generator_to_theirs(generator)
    average = state.pop(rosinality.AVERAGE)
    content = {"g_ema": OrderedDict(state), rosinality.AVERAGE: average}
    notes = [_construction(generator)]
    if generator.init_kwargs["synthesis_kwargs"].get("conv_clamp") is not None:
        notes.append("conv_clamp is left out, which their network does not have.")
    if discriminator is not None:
        problem = rosinality.no_place_for(discriminator)
        if problem is None:
            content["d"] = OrderedDict(rosinality.discriminator_to_theirs(discriminator))
        else:
            notes.append(f"The discriminator is left out: {problem}.")
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch's writer reports a full disk
            raise OSError(str(error)) from error
    return notes


def _construction(generator: Any) -> str:
    """Return the call with which their program builds the network for this file."""
    synthesis = generator.init_kwargs["synthesis_kwargs"]
    arguments = f"{generator.img_resolution}, {generator.w_dim}, {generator.mapping.num_layers}"
    channels = {
        r: len(getattr(generator.synthesis, f"b{r}").conv1.bias)
        for r in generator.synthesis.resolutions
    }
    multiplier = next((m for m in (2, 1) if channels == rosinality.channels(m, channels)), None)
    if multiplier is not None:
        arguments += f", channel_multiplier={multiplier}"
    if "resample_filter" in synthesis:
        arguments += f", blur_kernel={list(synthesis['resample_filter'])}"
    text = f"Load g_ema into Generator({arguments})."
    if multiplier is None:
        text += f" Its widths are not theirs: set the table `channels` in it to {channels} first."
    return text


def save_stylegan2_ada(path: Path, generator: Any, discriminator: Any) -> list[str]:
    """Write a StyleGAN2 so that the StyleGAN2-ADA family's networks load it strictly.

    Tensors have that family's names, under "G_ema." and "D."; the metadata's `config` holds the
    constructors' arguments.

    Args:
        path: ends in .safetensors.
        generator: a StyleGAN2.
        discriminator: its discriminator, or None.

    Returns:
        What the user must know before loading it: nothing.
    """
    init = dict(generator.init_kwargs)
    for group, known in (("mapping_kwargs", MAPPING), ("synthesis_kwargs", SYNTHESIS)):
        init[group] = {name: value for name, value in init[group].items() if name in known}
    init["synthesis_kwargs"] = FLOAT32 | init["synthesis_kwargs"]
    config = {"architecture": "stylegan2", "init": init}
    state = {f"G_ema.{name}": tensor for name, tensor in generator.state_dict().items()}
    if discriminator is not None:
        arguments = dict(discriminator.init_kwargs)
        group = arguments.pop("mbstd_group_size")
        epilogue = {"mbstd_group_size": group}
        config[DISCRIMINATOR] = FLOAT32 | arguments | {"epilogue_kwargs": epilogue}
        state |= {f"D.{n}": tensor for n, tensor in discriminator.state_dict().items()}
        # Their blocks store the low-pass too, besides the layers inside them.
        for r in discriminator.resolutions:
            state[f"D.b{r}.resample_filter"] = state[f"D.b{r}.conv1.resample_filter"]
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt", "config": json.dumps(config)})
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
    return []
