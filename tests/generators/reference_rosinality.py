"""rosinality's StyleGAN2 in float64 numpy, by its own names and conventions, and files of it.

Nothing here is shared with the package, nor with the reference of StyleGAN2-ADA: every weight has
its run-time gain before it is modulated, an up-sampling convolution is a transposed one that a
blur follows, and the blur is a true convolution with a kernel that sums to 4.
"""

import numpy as np
import torch
from scipy.signal import convolve2d, correlate2d

WIDTHS = {4: 12, 8: 12, 16: 8, 32: 4}
SCALE = 2**0.5


def kernel(taps=(1, 3, 3, 1), gain=1.0):
    """What their `make_kernel` makes."""
    k = np.outer(taps, taps).astype(np.float64)
    return torch.from_numpy(k / k.sum() * gain).float()


def state_dict(size=32, w_dim=10, layers=3, widths=WIDTHS, taps=(1, 3, 3, 1), seed=0):
    """Return a generator's tensors in the order in which theirs has them, every term non-zero."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return torch.randn(shape, generator=rng) * scale

    def modulated(name, out, into, k):
        return {
            f"{name}.conv.weight": normal(1, out, into, k, k),
            f"{name}.conv.modulation.weight": normal(into, w_dim),
            f"{name}.conv.modulation.bias": 1 + normal(into, scale=0.3),
        }

    def styled(name, out, into):
        return {
            **modulated(name, out, into, 3),
            f"{name}.noise.weight": normal(1, scale=0.3),
            f"{name}.activate.bias": normal(out, scale=0.3),
        }

    state = {}
    for i in range(layers):
        state[f"style.{i + 1}.weight"] = normal(w_dim, w_dim, scale=100)
        state[f"style.{i + 1}.bias"] = normal(w_dim, scale=30)
    sides = [4 * 2**i for i in range(int(np.log2(size)) - 1)]
    state["input.input"] = normal(1, widths[4], 4, 4)
    state |= styled("conv1", widths[4], widths[4])
    state |= modulated("to_rgb1", 3, widths[4], 1)
    state["to_rgb1.bias"] = normal(1, 3, 1, 1, scale=0.3)
    for k, side in enumerate(sides[1:]):
        state |= styled(f"convs.{2 * k}", widths[side], widths[side // 2])
        state[f"convs.{2 * k}.conv.blur.kernel"] = kernel(taps, 4)
        state |= styled(f"convs.{2 * k + 1}", widths[side], widths[side])
    for k, side in enumerate(sides[1:]):
        state |= modulated(f"to_rgbs.{k}", 3, widths[side], 1)
        state[f"to_rgbs.{k}.bias"] = normal(1, 3, 1, 1, scale=0.3)
        state[f"to_rgbs.{k}.upsample.kernel"] = kernel(taps, 4)
    for n in range(2 * len(sides) - 1):
        side = 2 ** ((n + 5) // 2)
        state[f"noises.noise_{n}"] = normal(1, 1, side, side)
    return state


def discriminator(size=32, widths=WIDTHS, seed=1):
    """Return a discriminator's tensors under their names."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return torch.randn(shape, generator=rng) * scale

    state = {
        "convs.0.0.weight": normal(widths[size], 3, 1, 1),
        "convs.0.1.bias": normal(widths[size], scale=0.3),
    }
    side, number = size, 1
    while side > 4:
        into, out = widths[side], widths[side // 2]
        state |= {
            f"convs.{number}.conv1.0.weight": normal(into, into, 3, 3),
            f"convs.{number}.conv1.1.bias": normal(into, scale=0.3),
            f"convs.{number}.conv2.0.kernel": kernel(),
            f"convs.{number}.conv2.1.weight": normal(out, into, 3, 3),
            f"convs.{number}.conv2.2.bias": normal(out, scale=0.3),
            f"convs.{number}.skip.0.kernel": kernel(),
            f"convs.{number}.skip.1.weight": normal(out, into, 1, 1),
        }
        side, number = side // 2, number + 1
    return state | {
        "final_conv.0.weight": normal(widths[4], widths[4] + 1, 3, 3),
        "final_conv.1.bias": normal(widths[4], scale=0.3),
        "final_linear.0.weight": normal(widths[4], widths[4] * 16),
        "final_linear.0.bias": normal(widths[4], scale=0.3),
        "final_linear.1.weight": normal(1, widths[4]),
        "final_linear.1.bias": normal(1, scale=0.3),
    }


def leaky(x):
    return np.where(x > 0, x, 0.2 * x) * SCALE


def linear(x, weight, bias, rate=1.0):
    return x @ (weight * rate / np.sqrt(weight.shape[1])).T + bias * rate


def numbers(state):
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def mapped(state, z):
    """Return the latents (N, w) of z (N, w)."""
    p = numbers(state)
    x = np.asarray(z, np.float64)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)
    number = 1
    while f"style.{number}.weight" in p:
        x = leaky(linear(x, p[f"style.{number}.weight"], p[f"style.{number}.bias"], 0.01))
        number += 1
    return x


def up_fir_down(x, k, up=1, down=1, pad=(0, 0)):
    """(C, H, W): zeros between the pixels and around them, a true convolution, every `down`-th."""
    zeros = np.zeros((len(x), x.shape[1] * up, x.shape[2] * up))
    zeros[:, ::up, ::up] = x
    padded = np.pad(zeros, ((0, 0), pad, pad))
    return np.stack([convolve2d(c, k, mode="valid") for c in padded])[:, ::down, ::down]


def modulate(p, name, w, demodulate):
    weight = p[f"{name}.conv.weight"][0]
    style = linear(w, p[f"{name}.conv.modulation.weight"], p[f"{name}.conv.modulation.bias"])
    weight = weight / np.sqrt(np.prod(weight.shape[1:])) * style[None, :, None, None]
    if demodulate:
        weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    return weight


def styled_conv(p, name, x, w, noise):
    weight = modulate(p, name, w, True)
    if f"{name}.conv.blur.kernel" in p:
        zeros = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
        zeros[:, ::2, ::2] = x  # a transposed convolution: every pixel spreads the kernel
        x = np.stack([sum(convolve2d(c, k) for c, k in zip(zeros, out)) for out in weight])
        blur = p[f"{name}.conv.blur.kernel"]
        p0 = (len(blur) - 2) - 2
        x = up_fir_down(x, blur, pad=((p0 + 1) // 2 + 1, p0 // 2 + 1))
    else:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        x = np.stack(
            [sum(correlate2d(c, k, mode="valid") for c, k in zip(padded, out)) for out in weight]
        )
    x = x + p[f"{name}.noise.weight"] * noise
    return leaky(x + p[f"{name}.activate.bias"][:, None, None])


def to_rgb(p, name, x, w, skip):
    weight = modulate(p, name, w, False)[:, :, 0, 0]
    x = np.einsum("oi,ihw->ohw", weight, x) + p[f"{name}.bias"][0]
    if skip is None:
        return x
    up = p[f"{name}.upsample.kernel"]
    p0 = len(up) - 2
    return x + up_fir_down(skip, up, up=2, pad=((p0 + 1) // 2 + 1, p0 // 2))


def generate(state, z, psi=1.0, average=None):
    """Return images (N, 3, R, R) with the constant noise of `state`."""
    p = numbers(state)
    images = []
    for w in mapped(state, z):
        if psi != 1:
            w = average.double().numpy() + psi * (w - average.double().numpy())
        x = styled_conv(p, "conv1", p["input.input"][0], w, p["noises.noise_0"][0, 0])
        image = to_rgb(p, "to_rgb1", x, w, None)
        k = 0
        while f"to_rgbs.{k}.bias" in p:
            for n in (2 * k, 2 * k + 1):
                x = styled_conv(p, f"convs.{n}", x, w, p[f"noises.noise_{n + 1}"][0, 0])
            image = to_rgb(p, f"to_rgbs.{k}", x, w, image)
            k += 1
        images.append(image)
    return np.stack(images)


def judge(state, images):
    """Return the logits (N,) of images (N, 3, R, R), N at most 4: one group."""
    p = numbers(state)

    def conv(x, weight, pad=1, stride=1):
        weight = weight / np.sqrt(np.prod(weight.shape[1:]))
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        found = [sum(correlate2d(c, k, mode="valid") for c, k in zip(padded, o)) for o in weight]
        return np.stack(found)[:, ::stride, ::stride]

    def act(x, bias):
        return leaky(x + bias[:, None, None])

    features = []
    for image in np.asarray(images, np.float64):
        x = act(conv(image, p["convs.0.0.weight"], 0), p["convs.0.1.bias"])
        n = 1
        while (name := f"convs.{n}") + ".skip.1.weight" in p:
            y = act(conv(x, p[f"{name}.conv1.0.weight"]), p[f"{name}.conv1.1.bias"])
            y = up_fir_down(y, p[f"{name}.conv2.0.kernel"], pad=(2, 2))
            y = act(conv(y, p[f"{name}.conv2.1.weight"], 0, 2), p[f"{name}.conv2.2.bias"])
            s = up_fir_down(x, p[f"{name}.skip.0.kernel"], pad=(1, 1))
            x = (y + conv(s, p[f"{name}.skip.1.weight"], 0, 2)) / np.sqrt(2)
            n += 1
        features.append(x)
    spread = np.sqrt(np.stack(features).var(axis=0) + 1e-8).mean()
    logits = []
    for x in features:
        x = np.concatenate([x, np.full((1, 4, 4), spread)])
        x = act(conv(x, p["final_conv.0.weight"]), p["final_conv.1.bias"]).reshape(-1)
        x = leaky(linear(x, p["final_linear.0.weight"], p["final_linear.0.bias"]))
        logits.append(linear(x, p["final_linear.1.weight"], p["final_linear.1.bias"])[0])
    return np.stack(logits)
