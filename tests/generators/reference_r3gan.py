"""R3GAN's documented arithmetic in float64 numpy, from a state dict as files hold it.

Nothing here is shared with the package: zeros are inserted and groups are looped over.
"""

import numpy as np
from scipy.signal import convolve2d


def conv(x, weight, groups=1):
    """(N, I, H, W) with (O, I / groups, k, k) → (N, O, H, W), a correlation."""
    k, side = weight.shape[-1], x.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    result = []
    for part, w in zip(np.split(x, groups, axis=1), np.split(weight, groups)):
        total = 0
        for i in range(k):
            for j in range(k):
                shifted = part[:, :, i : i + side, j : j + side]
                total = total + np.einsum("oi,nihw->nohw", w[:, :, i, j], shifted)
        result.append(total)
    return np.concatenate(result, axis=1)


def act(x, bias):
    x = x + bias[:, None, None]
    return np.where(x >= 0, x, 0.2 * x)


def up(x, taps):
    """Insert zeros; convolve with (taps ⋆ [1, 1]) ⊗ (taps ⋆ [1, 1]), sum 4."""
    f = np.convolve(taps, [1, 1])
    f = np.outer(f, f) / f.sum() ** 2 * 4
    cut = len(taps) // 2
    result = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    for n, c in np.ndindex(x.shape[:2]):
        zeros = np.zeros((2 * x.shape[2] - 1, 2 * x.shape[3] - 1))
        zeros[::2, ::2] = x[n, c]
        full = convolve2d(zeros, f)  # padding of a transposed convolution crops this
        result[n, c] = full[cut : len(full) - cut, cut : len(full) - cut]
    return result


def generate(state, z, init, c=None):
    """Return float64 images from the tensors in a file and the constructor's arguments."""
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    x = np.asarray(z, dtype=np.float64)
    if c is not None:
        x = np.hstack([x, np.asarray(c, np.float64) @ p["Model.EmbeddingLayer.weight"].T])
    for s, blocks in enumerate(init["BlocksPerStage"]):
        name = f"Model.MainLayers.{s}.Layers"
        if s == 0:
            scale = x @ p[f"{name}.0.LinearLayer.weight"].T
            x = p[f"{name}.0.Basis"][None] * scale[:, :, None, None]
        else:
            if f"{name}.0.LinearLayer.Layer.weight" in p:
                x = conv(x, p[f"{name}.0.LinearLayer.Layer.weight"])
            x = up(x, init.get("ResamplingFilter", [1, 2, 1]))
        for b in range(1, blocks + 1):
            part = f"{name}.{b}"
            y = conv(x, p[f"{part}.LinearLayer1.Layer.weight"])
            y = act(y, p[f"{part}.NonLinearity1.Bias"])
            groups = init["CardinalityPerStage"][s]
            y = conv(y, p[f"{part}.LinearLayer2.Layer.weight"], groups)
            y = act(y, p[f"{part}.NonLinearity2.Bias"])
            x = x + conv(y, p[f"{part}.LinearLayer3.Layer.weight"])
    return conv(x, p["Model.AggregationLayer.Layer.weight"])
