"""Discriminators, heads and augmentations in float64 numpy, written from their definitions.

Nothing here is shared with the package: images are padded, zeros are inserted, filters and colours
are applied one image and one step at a time, exactly as the formulas say.
"""

import numpy as np
from generators.reference import SQRT2, dense, lrelu, normalise
from scipy.signal import correlate2d
from scipy.spatial.transform import Rotation

BINOMIAL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def parameters(network):
    """Return a network's tensors as float64 arrays."""
    return {k: v.detach().double().numpy() for k, v in network.state_dict().items()}


# Networks


def correlate(x, weight):
    """(N, I, H, W) with (O, I, k, k) → (N, O, H - k + 1, W - k + 1)."""

    def channel(image, kernels):
        return sum(correlate2d(c, m, mode="valid") for c, m in zip(image, kernels))

    return np.stack([np.stack([channel(image, kernels) for kernels in weight]) for image in x])


def pad(x, before, after):
    return np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))


def low_pass(x):
    """Filter every channel; loses three rows and columns."""
    return np.stack([[correlate2d(c, BINOMIAL, mode="valid") for c in image] for image in x])


def convolution(p, name, x, *, down=False, activate=True, gain=1.0, act_gain=SQRT2, scale=None):
    """Return act(conv(x)·scale + b)·gain; where it halves, a low-pass comes before.

    `scale` is 1/sqrt(fan-in) of the equalised learning rate unless given.
    """
    weight = p[f"{name}.weight"]
    k = weight.shape[-1]
    weight = weight * (1 / np.sqrt(weight[0].size) if scale is None else scale)
    if down:
        # Padding of the filter, (taps - 1) / 2 rounded either way, and of the kernel.
        before, after = (4 - 2 + 1) // 2 + k // 2, (4 - 2) // 2 + k // 2
        y = correlate(low_pass(pad(x, before, after)), weight)[:, :, ::2, ::2]
    else:
        y = correlate(pad(x, k // 2, k // 2), weight)
    if f"{name}.bias" in p:
        y = y + p[f"{name}.bias"][:, None, None]
    return (lrelu(y) / SQRT2 * act_gain if activate else y) * gain


def spread(x, group):
    """Append the mean standard deviation within groups as a channel."""
    n, _, h, w = x.shape
    groups = n // group
    result = np.empty((n, 1, h, w))
    for first in range(groups):
        rows = np.arange(first, n, groups)  # every groups-th sample is of one group
        result[rows] = np.sqrt(x[rows].var(axis=0) + 1e-8).mean()
    return np.concatenate([x, result], axis=1)


def discriminate(network, images, c=None):
    """Return float64 logits (N,) of a StyleGAN2 discriminator."""
    p, init = parameters(network), network.init_kwargs
    x, r = np.asarray(images, dtype=np.float64), init["img_resolution"]
    x = convolution(p, f"b{r}.fromrgb", x)
    while r > 4:
        if init["architecture"] == "resnet":
            half = np.sqrt(0.5)
            skip = convolution(p, f"b{r}.skip", x, down=True, activate=False, gain=half)
            x = convolution(p, f"b{r}.conv0", x)
            x = skip + convolution(p, f"b{r}.conv1", x, down=True, gain=half)
        else:
            x = convolution(p, f"b{r}.conv1", convolution(p, f"b{r}.conv0", x), down=True)
        r //= 2
    x = convolution(p, "b4.conv", spread(x, min(init["mbstd_group_size"], len(x))))
    x = dense(p, "b4.out", dense(p, "b4.fc", x.reshape(len(x), -1), activate=True))
    if not init["c_dim"]:
        return x[:, 0]
    y = normalise(dense(p, "mapping.embed", np.asarray(c, dtype=np.float64)))
    for i in range(8):
        y = dense(p, f"mapping.fc{i}", y, lr=0.01, activate=True)
    return (x * y).sum(axis=1) / np.sqrt(y.shape[1])


def spectral(weight):
    """Divide a weight by the largest singular value of its matrix of outputs by inputs."""
    return weight / np.linalg.norm(weight.reshape(len(weight), -1), 2)


class HeadReference:
    """A head's logits from its weights: equalised, or spectral as in the pip package."""

    def __init__(self, head, norm):
        self.p, self.norm = parameters(head), norm
        if norm == "spectral":
            end = ".parametrizations.weight.original"
            raw = {k.removesuffix(end): v for k, v in self.p.items() if k.endswith(end)}
            self.p |= {f"{k}.weight": spectral(v) for k, v in raw.items()}

    def convolve(self, name, x, **options):
        if self.norm == "spectral":
            options |= {"scale": 1.0, "act_gain": 1.0}
        return convolution(self.p, name, x, **options)

    def logit(self, name, x):
        hidden, out = (f"{name}.{part}" for part in ("hidden", "out"))
        if self.norm == "equalised":
            return dense(self.p, out, dense(self.p, hidden, x, activate=True))[:, 0]
        h = x @ self.p[f"{hidden}.weight"].T + self.p[f"{hidden}.bias"]
        h = np.where(h >= 0, h, 0.2 * h)
        return (h @ self.p[f"{out}.weight"].T + self.p[f"{out}.bias"])[:, 0]

    def __call__(self, maps, pooled):
        """Return float64 levels for maps of at most 16 px."""
        if not maps:
            return [self.logit("network", pooled)]
        if len(maps) == 1:
            x = self.convolve("network.convs.0", maps[0], down=True)
            return [self.logit("network.final", x.reshape(len(x), -1))]
        levels = []
        for i, x in enumerate(maps):
            name = f"network.levels.{i}.convs"
            x = self.convolve(f"{name}.0", x, down=x.shape[-1] > 8)
            levels.append(self.convolve(f"{name}.1", x, down=True, activate=False)[:, 0])
        return [*levels, self.logit("network.final", pooled)]


# Augmentations


def zoom_in(x, taps):
    """(H, W) → (2H, 2W): insert zeros and filter, rows and columns, with gain 2 each.

    The filter's tap 5 stands for the pixel itself.
    """
    taps = np.asarray(taps) / np.sum(taps) * 2

    def double(line):
        zeros = np.zeros(2 * len(line))
        zeros[::2] = line
        return np.convolve(zeros, taps)[5 : 5 + len(zeros)]

    return np.apply_along_axis(double, 0, np.apply_along_axis(double, 1, x))


def zoom_out(x, taps):
    """(2H + 10, 2W + 10) → (H, W): filter rows and columns, keep every second."""
    taps = np.asarray(taps) / np.sum(taps)

    def halve(line):
        return np.correlate(line, taps, "valid")[::2]

    return np.apply_along_axis(halve, 0, np.apply_along_axis(halve, 1, x))


def warp(image, matrix, taps):
    """Transform one image (C, R, R); `matrix` maps pixels from the centre to where they go.

    Where that reads beyond R - 1 reflected pixels the definition says nothing: NaN.
    """
    side = image.shape[-1]
    margin, result = side - 1, []
    inverse = np.linalg.inv(matrix)
    middle = (side - 1) / 2
    axis = (np.arange(2 * side + 10) - 5) / 2 - middle  # half-pixels that the last filter reads
    ys, xs = np.meshgrid(axis, axis, indexing="ij")
    source = inverse @ np.stack([xs, ys, np.ones_like(xs)]).reshape(3, -1)
    columns, rows = (2 * (source[i] + middle + margin) for i in (0, 1))
    nearest, farthest = min(columns.min(), rows.min()), max(columns.max(), rows.max())
    if nearest < 10 or farthest >= 2 * (side + 2 * margin) - 12:
        return np.full(image.shape, np.nan)
    for channel in image:
        wide = zoom_in(np.pad(channel, margin, mode="reflect"), taps)
        left, top = (np.floor(v).astype(int) for v in (columns, rows))
        right, low = columns - left, rows - top
        read = (
            wide[top, left] * (1 - low) * (1 - right)
            + wide[top, left + 1] * (1 - low) * right
            + wide[top + 1, left] * low * (1 - right)
            + wide[top + 1, left + 1] * low * right
        )
        result.append(zoom_out(read.reshape(ys.shape), taps))
    return np.stack(result)


def recolour(image, steps):
    """Apply brightness, contrast, luma flip, hue and saturation to one image (3, R, R) in turn.

    Args:
        image: in [-1, 1].
        steps: (brightness, contrast, flip, angle, saturation); the neutral ones are 0, 1, 0, 0, 1.
    """
    light, factor, flip, angle, chroma = steps
    x = (image + light) * factor
    x = x - 2 * flip * x.mean(axis=0)
    turn = Rotation.from_rotvec(np.full(3, angle / np.sqrt(3))).as_matrix()
    x = np.einsum("ij,jhw->ihw", turn, x)
    return x.mean(axis=0) + (x - x.mean(axis=0)) * chroma


def diffaugment(image, draws):
    """Colour, translation and cutout of one image (3, R, R).

    Args:
        image: of an even side.
        draws: (brightness, saturation, contrast) from [0, 1); (down, right) in pixels; row and
            column of the cutout's centre, on the edges between pixels.
    """
    (light, chroma, spread_), (down, right), centre = draws
    side = image.shape[-1]
    x = image + (light - 0.5)
    x = x.mean(axis=0) + (x - x.mean(axis=0)) * 2 * chroma
    x = x.mean() + (x - x.mean()) * (spread_ + 0.5)
    moved = np.zeros_like(x)
    for i in range(side):
        for j in range(side):
            if 0 <= i - down < side and 0 <= j - right < side:
                moved[:, i, j] = x[:, i - down, j - right]
    top, left = (max(0, c - side // 4) for c in centre)
    moved[:, top : centre[0] + side // 4, left : centre[1] + side // 4] = 0
    return moved
