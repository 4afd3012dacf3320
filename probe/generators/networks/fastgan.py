"""The FastGAN generator of Projected GAN, plain and class-conditional (Liu et al. 2021).

Files store the convolutions before spectral normalisation, as `weight_orig`, `weight_u` and
`weight_v`; the network here stores the normalised weights. `convert_state` converts them once,
when a file is read.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.devices import send
from probe.errors import CheckpointError, UsageError, printable
from probe.generators.networks.layers import (
    check_call,
    noise_maps,
    normal,
    second_moment_normalise,
)

# Feature channels at each resolution, in multiples of `ngf`.
CHANNELS = {
    4: 16.0,
    8: 8.0,
    16: 4.0,
    32: 2.0,
    64: 2.0,
    128: 1.0,
    256: 0.5,
    512: 0.25,
    1024: 0.125,
}
SMALLEST_IN_FILES = 256  # files hold the layers up to this size even if their images are smaller
EXCITED = (64, 128, 256, 512)  # resolutions whose features are scaled by those at 1/16 the size
EPS = 1e-5  # for batch normalisation


class Noise(nn.Module):
    """Per-pixel noise times one learned factor.

    Files store no noise, so "const" is one fixed draw per layer, the same for every sample.

    Args:
        number: of the layer in its network; also the seed of the fixed draw.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.weight = nn.Parameter(torch.zeros([]))

    def forward(self, x: torch.Tensor, mode: str, keys: torch.Tensor | None) -> torch.Tensor:
        """Add noise to x (N, C, H, W), the same to every channel."""
        if mode == "none":
            return x
        const = mode == "const"
        noise = _fixed_map(x, self.number) if const else noise_maps(x, keys, self.number)
        return x + (noise * self.weight).to(x)


def _fixed_map(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Return one map of normal numbers (1, 1, R, R) for x (N, C, R, R)."""
    stream = torch.Generator().manual_seed(seed)
    return send(torch.randn(1, 1, *x.shape[2:], generator=stream), x.device)


class Norm(nn.Module):
    """Batch normalisation with running statistics."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None) -> torch.Tensor:
        """Normalise x (N, C, H, W); the embedding is ignored."""
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, training=False, eps=EPS)


class ClassNorm(nn.Module):
    """Batch normalisation whose scale and shift are linear in the class embedding."""

    stored_mean: torch.Tensor
    stored_var: torch.Tensor

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.gain = nn.Linear(embedding_dim, channels)
        self.bias = nn.Linear(embedding_dim, channels)
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Normalise x (N, C, H, W), then apply 1 + gain and bias from embedding (N, E)."""
        x = F.batch_norm(x, self.stored_mean, self.stored_var, training=False, eps=EPS)
        scale = 1 + self.gain(embedding)
        return torch.addcmul(self.bias(embedding)[:, :, None, None], x, scale[:, :, None, None])


def make_norm(channels: int, embedding_dim: int) -> nn.Module:
    """Return a block's normalisation, class-conditional if there are embeddings."""
    return ClassNorm(channels, embedding_dim) if embedding_dim else Norm(channels)


class Init(nn.Module):
    """Latents (N, z_dim) to features (N, C, 4, 4)."""

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(z_dim, 2 * channels, 4, bias=False)
        self.norm = Norm(2 * channels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Apply the layer to normalised z."""
        return F.glu(self.norm(self.conv(z[:, :, None, None]), None), dim=1)


class UpBlock(nn.Module):
    """Double the size: nearest neighbour, then convolution, normalisation and gate.

    The default adds noise before each normalisation and runs everything after the up-sampling
    twice. `lite` has no noise and one convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: int,
        *,
        lite: bool,
        embedding_dim: int,
    ) -> None:
        super().__init__()
        self.lite = lite
        self.conv1 = nn.Conv2d(in_channels, 2 * out_channels, 3, padding=1, bias=False)
        self.norm1 = make_norm(2 * out_channels, embedding_dim)
        if not lite:
            self.noise1 = Noise(2 * resolution)
            self.conv2 = nn.Conv2d(out_channels, 2 * out_channels, 3, padding=1, bias=False)
            self.noise2 = Noise(2 * resolution + 1)
            self.norm2 = make_norm(2 * out_channels, embedding_dim)

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor | None,
        noise_mode: str,
        noise_keys: torch.Tensor | None,
    ) -> torch.Tensor:
        """Map x (N, I, h, h), plus (N, E) if conditional, to (N, O, 2h, 2h)."""
        x = self.conv1(F.interpolate(x, scale_factor=2, mode="nearest"))
        if self.lite:
            return F.glu(self.norm1(x, embedding), dim=1)
        x = F.glu(self.norm1(self.noise1(x, noise_mode, noise_keys), embedding), dim=1)
        x = self.conv2(x)
        return F.glu(self.norm2(self.noise2(x, noise_mode, noise_keys), embedding), dim=1)


class Excitation(nn.Module):
    """Skip-layer excitation: a small map scales each channel of a large one."""

    def __init__(self, small_channels: int, large_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(small_channels, large_channels, 4, bias=False)
        self.conv2 = nn.Conv2d(large_channels, large_channels, 1, bias=False)

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        """Scale the channels of large (N, O, H, W) by factors from small (N, I, h, w)."""
        x = F.silu(self.conv1(F.adaptive_avg_pool2d(small, 4)))
        return large * self.conv2(x).sigmoid()


class Synthesis(nn.Module):
    """Latents and classes to images: `init`, `feat_8` … , `se_64` … , `to_big`.

    Layers up to 256 pixels always exist, as in the files; those above the images' resolution are
    not run.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        ngf: int,
        *,
        lite: bool = False,
    ) -> None:
        super().__init__()
        held = [r for r in CHANNELS if r <= max(img_resolution, SMALLEST_IN_FILES)]
        channels = {r: int(CHANNELS[r] * ngf) for r in held}
        if min(channels.values()) < 1:
            raise UsageError(f"A FastGAN generator of ngf = {ngf} has a layer without channels.")
        self.resolutions = [r for r in held if 4 < r <= img_resolution]
        if c_dim:
            self.embed = nn.Embedding.from_pretrained(normal(c_dim, z_dim), freeze=False)
        self.init = Init(z_dim, channels[4])
        for r in held[1:]:
            block = UpBlock(
                channels[r // 2], channels[r], r, lite=lite, embedding_dim=z_dim if c_dim else 0
            )
            setattr(self, f"feat_{r}", block)
        for r in EXCITED:
            if r in channels:
                setattr(self, f"se_{r}", Excitation(channels[r // 16], channels[r]))
        self.to_big = nn.Conv2d(channels[img_resolution], img_channels, 3, padding=1)

    def forward(
        self,
        z: torch.Tensor,
        classes: torch.Tensor | None,
        *,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map z (N, z_dim) and class numbers (N,) to images (N, img_channels, R, R), float32."""
        embedding = None if classes is None else self.embed(classes)
        x = self.init(second_moment_normalise(z.float()))
        features = {4: x}
        for r in self.resolutions:
            x = getattr(self, f"feat_{r}")(x, embedding, noise_mode, noise_keys)
            if r in EXCITED:
                x = getattr(self, f"se_{r}")(features.pop(r // 16), x)
            elif 16 * r in EXCITED:
                features[r] = x
        return self.to_big(x).float()


class Generator(nn.Module):
    """FastGAN: z and class to an image (see `probe.generators.base.Generator`).

    FastGAN has no intermediate latent and so no mean to truncate towards: `truncation_psi` must be
    1 and `truncation_cutoff` is ignored. Networks with `lite` have no noise.

    Args:
        z_dim: width of the latent, and of the class embedding.
        c_dim: number of classes in the data; ignored unless `cond`.
        img_resolution: a power of two from 8 to 1024; files always give it.
        img_channels: 3, or 1 for grey.
        ngf: multiplies the channels of every layer.
        cond: whether the network is conditional.
        synthesis_kwargs: {"lite": True} for the smaller network with one convolution per block.
    """

    def __init__(
        self,
        z_dim: int = 256,
        c_dim: int = 0,
        img_resolution: int = 256,
        img_channels: int = 3,
        ngf: int = 128,
        cond: bool = False,
        synthesis_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if img_resolution not in CHANNELS or img_resolution == 4:
            raise UsageError(
                f"A FastGAN generator has a resolution that is a power of two from 8 to 1024, not "
                f"{img_resolution}."
            )
        if cond and not c_dim:
            raise UsageError("A conditional FastGAN generator needs classes: c_dim is 0.")
        self.z_dim, self.c_dim = z_dim, c_dim if cond else 0
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "ngf": ngf,
            "cond": bool(cond),
            "synthesis_kwargs": dict(synthesis_kwargs or {}),
        }
        self.synthesis = Synthesis(
            z_dim, self.c_dim, img_resolution, img_channels, ngf, **(synthesis_kwargs or {})
        )

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return images (N, img_channels, R, R), float32, nominally in [-1, 1].

        Raises:
            UsageError: if truncation is asked for, or a conditional network gets no classes.
        """
        check_call("FastGAN", truncation_psi, self.c_dim, c)
        classes = None if c is None or not self.c_dim else c.argmax(dim=1)
        return self.synthesis(z, classes, noise_mode=noise_mode, noise_keys=noise_keys)


def derive_arguments(
    state: Mapping[str, torch.Tensor], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the constructor's arguments, from tensor names and shapes.

    The resolution comes from an attribute, since files hold the layers up to 256 pixels anyway.
    Without the attribute, the width of the last layer decides; 32 and 64 pixels share one width,
    and 64 is assumed.

    Args:
        state: tensors under the network's names.
        attributes: plain values from the file's modules; only `img_resolution` is used.

    Raises:
        KeyError: the name of a missing tensor.
    """
    z_dim, width = state["synthesis.init.conv.weight"].shape[:2]
    img_channels, last = state["synthesis.to_big.weight"].shape[:2]
    ngf = int(width // 2 // CHANNELS[4])
    fitting = [
        resolution
        for resolution, share in CHANNELS.items()
        if int(share * ngf) == last and f"synthesis.feat_{resolution}.conv1.weight" in state
    ]
    resolution = attributes.get("img_resolution", attributes.get("synthesis.img_resolution"))
    embedding = state.get("synthesis.embed.weight")
    return {
        "z_dim": z_dim,
        "c_dim": 0 if embedding is None else len(embedding),
        "img_resolution": max(fitting, default=None) if resolution is None else resolution,
        "img_channels": img_channels,
        "ngf": ngf,
        "cond": embedding is not None,
        "synthesis_kwargs": {"lite": "synthesis.feat_8.conv2.weight" not in state},
    }


# A tensor's name in a file: component, then layer and leaf. Layer names within a component are
# not relied on.
COMPONENT = re.compile(r"(?:synthesis\.)?(init|feat_\d+|se_\d+|to_big|embed)\.(.+)")
LEAF = re.compile(
    r"(?:(.*?)\.)?((?:(?:gain|bias)\.)?(?:weight_orig|weight_u|weight_v|weight|bias)"
    r"|(?:running|stored)_(?:mean|var)|num_batches_tracked)"
)
SPECTRAL = ("weight_orig", "weight_u", "weight_v")


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert a file's tensors to the names and values of `Generator`.

    - Spectral normalisation: `weight_orig` / σ, with σ = uᵀ W v, becomes `weight`. W has one row
      per output channel.
    - Layers within a component are recognised by kind and order (the first convolution is
      `conv1`, …), not by name.
    - The gain and bias layers of a class-conditional normalisation may lack biases; zeros are used.
    - A block with two convolutions and one noise layer adds that noise after both.
    - `num_batches_tracked` is dropped. Tensors that belong nowhere keep their names, so that
      loading reports them.

    A converted state, such as a `Generator`'s own, is returned unchanged.

    Raises:
        CheckpointError: if a spectral normalisation is incomplete or misshapen, or a tensor appears
            twice.
    """
    layers: dict[str, dict[str, dict[str, torch.Tensor]]] = {}  # component → layer → leaf → tensor
    result = {}
    for name, tensor in state.items():
        part = COMPONENT.fullmatch(name)
        leaf = None if part is None else LEAF.fullmatch(part[2])
        if part is None or leaf is None:
            result[name] = tensor
            continue
        layer = layers.setdefault(part[1], {}).setdefault(leaf[1] or "", {})
        if leaf[2] in layer:
            raise CheckpointError(f"its tensor '{printable(name, 100)}' appears twice")
        layer[leaf[2]] = tensor
    for component, found in layers.items():
        for name, leaves in _rename(component, found):
            for leaf, tensor in leaves.items():
                if f"{name}.{leaf}" in result:
                    raise CheckpointError(f"its tensor '{printable(name, 100)}' appears twice")
                result[f"{name}.{leaf}"] = tensor
    for component in layers:
        noise, second = (f"synthesis.{component}.noise{i}.weight" for i in (1, 2))
        if noise in result and f"synthesis.{component}.conv2.weight" in result:
            result.setdefault(second, result[noise].clone())
    return result


def _rename(
    component: str, layers: Mapping[str, dict[str, torch.Tensor]]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield a component's layers under the network's names, with normalised weights."""
    counts: dict[str, int] = {}
    for name, leaves in layers.items():
        full = f"synthesis.{component}" + (f".{name}" if name else "")
        leaves = _fold(full, leaves, output_dim=1 if component == "init" else 0)
        kind = _kind(component, leaves)
        if kind is not None:
            counts[kind] = counts.get(kind, 0) + 1
            leaf_name = f"{kind}{counts[kind]}"
            if component == "init" and counts[kind] == 1:
                leaf_name = kind
            full = f"synthesis.{component}.{leaf_name}"
        elif component in ("to_big", "embed") and len(layers) == 1:
            full = f"synthesis.{component}"
        if kind == "norm" and "stored_mean" in leaves:
            for linear in ("gain", "bias"):
                weight = leaves.get(f"{linear}.weight")
                if weight is not None and weight.numel():  # an empty one's shape is unbounded
                    leaves.setdefault(f"{linear}.bias", torch.zeros(weight.shape[:1]))
        elif kind == "noise":
            leaves = {"weight": leaves["weight"].reshape([])}
        yield full, leaves


def _kind(component: str, leaves: Mapping[str, torch.Tensor]) -> str | None:
    if component in ("to_big", "embed"):
        return None
    if "running_mean" in leaves or "stored_mean" in leaves:
        return "norm"
    weight = leaves.get("weight")
    if weight is None:
        return None
    if component.startswith("feat_") and leaves.keys() == {"weight"} and weight.numel() == 1:
        return "noise"
    return "conv" if weight.ndim == 4 else None


def _fold(
    name: str, leaves: Mapping[str, torch.Tensor], *, output_dim: int
) -> dict[str, torch.Tensor]:
    """Replace each spectral normalisation by its normalised weight; drop the batch counter."""
    result = {}
    for leaf, tensor in leaves.items():
        prefix, _, last = leaf.rpartition(".")
        prefix = f"{prefix}." if prefix else ""
        if last not in SPECTRAL:
            if leaf != "num_batches_tracked":
                result[leaf] = tensor
            continue
        if last != "weight_orig" and f"{prefix}weight_orig" in leaves:
            continue
        parts = [leaves[prefix + part] for part in SPECTRAL if prefix + part in leaves]
        if len(parts) < len(SPECTRAL) or f"{prefix}weight" in leaves:
            raise CheckpointError(
                f"its tensor '{printable(name, 100)}.{leaf}' belongs to an incomplete spectral "
                "normalisation"
            )
        weight, u, v = (part.float() for part in parts)
        rows = weight.shape[output_dim] if weight.ndim > 1 else 0
        if not rows or u.shape != (rows,) or v.shape != (weight.numel() // rows,):
            raise CheckpointError(
                f"its tensor '{printable(name, 100)}.{leaf}' does not fit its spectral "
                "normalisation"
            )
        matrix = weight.movedim(output_dim, 0).reshape(rows, -1)
        result[f"{prefix}weight"] = weight / torch.dot(u, torch.mv(matrix, v))
    return result
