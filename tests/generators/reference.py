"""StyleGAN2's documented arithmetic in float64 numpy, written from its definition.

Nothing here is shared with the package: zeros are inserted, kernels are flipped and weights are
modulated per sample, exactly as the formulas say.
"""

import numpy as np
from scipy.signal import convolve2d, correlate2d

SQRT2 = np.sqrt(2.0)


def lrelu(x):
    return np.where(x >= 0, x, 0.2 * x) * SQRT2


def dense(p, name, x, lr=1.0, activate=False):
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    y = x @ weight.T * (lr / np.sqrt(weight.shape[1])) + bias * lr
    return lrelu(y) if activate else y


def normalise(x):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)


def up(x, taps):
    """(C, H, W) → (C, 2H, 2W): insert zeros, filter with gain 4, pad 2 before and 1 after."""
    f = np.outer(taps, taps) / np.sum(taps) ** 2 * 4
    result = []
    for channel in x:
        zeros = np.zeros((2 * channel.shape[0], 2 * channel.shape[1]))
        zeros[::2, ::2] = channel
        result.append(convolve2d(np.pad(zeros, ((2, 1), (2, 1))), f, mode="valid"))
    return np.stack(result)


def modulated(x, weight, style, taps=None, demodulate=True):
    """One sample: (I, H, W) with (O, I, k, k) and (I,) → (O, ·, ·)."""
    w = weight * style[None, :, None, None]
    if demodulate:
        w = w / np.sqrt((w**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    k = w.shape[-1]
    if taps is None:
        pad = k // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        return np.stack(
            [sum(correlate2d(c, m, mode="valid") for c, m in zip(padded, o)) for o in w]
        )
    f = np.outer(taps, taps) / np.sum(taps) ** 2 * 4
    before, after = k // 2 + (len(taps) + 1) // 2, k // 2 + (len(taps) - 2) // 2
    result = []
    zeros = np.zeros((x.shape[0], 2 * x.shape[1], 2 * x.shape[2]))
    zeros[:, ::2, ::2] = x
    padded = np.pad(zeros, ((0, 0), (before, after), (before, after)))
    for o in w:
        y = sum(convolve2d(c, m, mode="valid") for c, m in zip(padded, o))
        result.append(convolve2d(y, f, mode="valid"))
    return np.stack(result)


def layer(p, name, x, w, taps=None, gain=1.0, clamp=None):
    style = dense(p, f"{name}.affine", w[None])[0]
    y = modulated(x, p[f"{name}.weight"], style, taps)
    y = y + p[f"{name}.noise_const"] * p[f"{name}.noise_strength"]
    y = lrelu(y + p[f"{name}.bias"][:, None, None]) * gain
    return y if clamp is None else np.clip(y, -clamp * gain, clamp * gain)


def to_rgb(p, name, x, w, clamp=None):
    weight = p[f"{name}.weight"]
    style = dense(p, f"{name}.affine", w[None])[0] / np.sqrt(weight.shape[1])
    y = modulated(x, weight, style, demodulate=False) + p[f"{name}.bias"][:, None, None]
    return y if clamp is None else np.clip(y, -clamp, clamp)


def generate(network, z, c, psi=1.0, cutoff=None):
    """Return float64 images (N, 3, R, R), constant noise."""
    p = {k: v.double().numpy() for k, v in network.state_dict().items()}
    init = network.init_kwargs
    synthesis = init["synthesis_kwargs"]
    taps = np.asarray(synthesis.get("resample_filter", [1, 3, 3, 1]), dtype=float)
    architecture = synthesis.get("architecture", "skip")
    clamp = synthesis.get("conv_clamp")
    x = normalise(np.asarray(z, dtype=np.float64))
    if init["c_dim"]:
        x = np.hstack([x, normalise(dense(p, "mapping.embed", np.asarray(c, np.float64)))])
    for i in range(init["mapping_kwargs"].get("num_layers", 8)):
        x = dense(p, f"mapping.fc{i}", x, lr=0.01, activate=True)
    resolutions = [4 * 2**i for i in range(int(np.log2(init["img_resolution"])) - 1)]
    count = 2 * len(resolutions)
    average = p["mapping.w_avg"]
    images = []
    for w in x:
        ws = np.tile(w, (count, 1))
        n = count if cutoff is None else cutoff
        ws[:n] = average + psi * (ws[:n] - average)
        h, img, at = None, None, 0
        for r in resolutions:
            b = f"synthesis.b{r}"
            if r == 4:
                h = layer(p, f"{b}.conv1", p[f"{b}.const"], ws[0], clamp=clamp)
                at += 1
            else:
                gain = np.sqrt(0.5) if architecture == "resnet" else 1.0
                skip = None
                if architecture == "resnet":
                    weight = p[f"{b}.skip.weight"]
                    mixed = np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], h)
                    skip = up(mixed / np.sqrt(weight.shape[1]), taps) * np.sqrt(0.5)
                h = layer(p, f"{b}.conv0", h, ws[at], taps, clamp=clamp)
                h = layer(p, f"{b}.conv1", h, ws[at + 1], gain=gain, clamp=clamp)
                h = h if skip is None else h + skip
                at += 2
            img = None if img is None else up(img, taps)
            if architecture == "skip" or r == resolutions[-1]:
                rgb = to_rgb(p, f"{b}.torgb", h, ws[at], clamp)
                img = rgb if img is None else img + rgb
        images.append(img)
    return np.stack(images)
