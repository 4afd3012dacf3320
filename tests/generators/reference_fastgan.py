"""FastGAN's documented arithmetic in float64 numpy, from a state dict as files hold it.

Nothing here is shared with the package: spectral normalisation is undone where a weight is used,
and convolutions are sums over shifted maps. Names within a component are those of
`test_fastgan.stored`; components are called as documented.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def conv(x, weight, pad=0):
    """(N, I, H, W) with (O, I, k, k) → (N, O, ·, ·), a correlation."""
    k = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    side = x.shape[-1] - k + 1
    result = 0
    for i in range(k):
        for j in range(k):
            shifted = x[:, :, i : i + side, j : j + side]
            result = result + np.tensordot(weight[:, :, i, j], shifted, (1, 1)).swapaxes(0, 1)
    return result


def spectral(p, name, transposed=False):
    weight, u, v = (p[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
    rows = weight.swapaxes(0, 1) if transposed else weight
    return weight / (u @ rows.reshape(len(rows), -1) @ v)


def linear(p, name, x):
    return x @ spectral(p, name).T + p.get(f"{name}.bias", 0)


def norm(p, name, x, embedding):
    if embedding is None or f"{name}.running_mean" in p:
        mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
        gain, bias = p[f"{name}.weight"][None], p[f"{name}.bias"][None]
    else:
        mean, var = p[f"{name}.stored_mean"], p[f"{name}.stored_var"]
        gain = 1 + linear(p, f"{name}.gain", embedding)
        bias = linear(p, f"{name}.bias", embedding)
    x = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
    return x * gain[:, :, None, None] + bias[:, :, None, None]


def glu(x):
    half = x.shape[1] // 2
    return x[:, :half] * sigmoid(x[:, half:])


def step(p, x, names, embedding, noise):
    """Convolution, noise where the layers have it, normalisation, gate."""
    x = conv(x, spectral(p, names[0]), pad=1)
    if len(names) == 3 and noise is not None:
        x = x + p[names[1]].reshape(()) * noise
    return glu(norm(p, names[-1], x, embedding))


def excite(p, name, small, large):
    cells = small.shape[-1] // 4
    pooled = small.reshape(*small.shape[:2], 4, cells, 4, cells).mean(axis=(3, 5))
    x = conv(pooled, spectral(p, f"{name}.main.1"))
    x = x * sigmoid(x)
    return large * sigmoid(conv(x, spectral(p, f"{name}.main.3")))


def generate(state, z, resolution, classes=None, lite=False, noise=None):
    """Return float64 images.

    Args:
        state: tensors by their names in a file.
        z: (N, z_dim).
        resolution: of the images.
        classes: class numbers of a conditional network.
        lite: one convolution per block.
        noise: (resolution, 0 or 1) → a map that every sample gets, or None for no noise.
    """
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    z = np.asarray(z, dtype=np.float64)
    z = z / np.sqrt((z**2).mean(axis=1, keepdims=True))
    embedding = None if classes is None else p["synthesis.embed.weight"][np.asarray(classes)]
    # A transposed convolution of a single pixel: its weight, scaled.
    x = np.einsum("ni,iokl->nokl", z, spectral(p, "synthesis.init.init.0", transposed=True))
    features = {4: glu(norm(p, "synthesis.init.init.1", x, None))}
    for e in range(3, int(np.log2(resolution)) + 1):
        r, name = 2**e, f"synthesis.feat_{2**e}.main"
        x = features[r // 2].repeat(2, axis=2).repeat(2, axis=3)
        maps = [None, None] if noise is None else [noise(r, 0), noise(r, 1)]
        if lite:
            x = step(p, x, [f"{name}.1", f"{name}.2"], embedding, None)
        else:
            names = [f"{name}.1", f"{name}.2.weight", f"{name}.3"]
            x = step(p, x, names, embedding, maps[0])
            names = [f"{name}.5", f"{name}.6.weight", f"{name}.7"]
            x = step(p, x, names, embedding, maps[1])
        if 64 <= r <= 512:
            x = excite(p, f"synthesis.se_{r}", features[r // 16], x)
        features[r] = x
    bias = p["synthesis.to_big.bias"][:, None, None]
    return conv(features[resolution], spectral(p, "synthesis.to_big"), pad=1) + bias
