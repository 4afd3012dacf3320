"""StyleGAN3's documented arithmetic in float64 numpy, written from its definition.

Nothing here is shared with the package: zeros are inserted, grids are padded, filters are run tap
by tap and weights are modulated per sample, exactly as the formulas say. Filters come from the
network's buffers, as they do in a file; `filters` designs them for comparison.
"""

import numpy as np
from scipy.signal import firwin, kaiser_atten, kaiser_beta
from scipy.special import j1

SCHEDULE = {
    "channel_base": 32768,
    "channel_max": 512,
    "num_layers": 14,
    "num_critical": 2,
    "first_cutoff": 2,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "margin_size": 10,
}
DEFAULTS = {
    **SCHEDULE,
    "output_scale": 0.25,
    "conv_kernel": 3,
    "filter_size": 6,
    "lrelu_upsampling": 2,
    "use_radial_filters": False,
    "conv_clamp": 256,
}


def dense(p, name, x, lr=1.0):
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    return x @ weight.T * (lr / np.sqrt(weight.shape[1])) + bias * lr


def normalise(x):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)


def schedule(resolution, channels, o):
    """Return a dict of arrays over layers 0 … L."""
    last = o["num_layers"]
    e = np.minimum(np.arange(last + 1) / (last - o["num_critical"]), 1)
    cutoff = o["first_cutoff"] * (resolution / 2 / o["first_cutoff"]) ** e
    stopband = (
        o["first_stopband"] * (resolution / 2 * o["last_stopband_rel"] / o["first_stopband"]) ** e
    )
    rate = 2 ** np.ceil(np.log2(np.minimum(2 * stopband, resolution)))
    size = rate + 2 * o["margin_size"]
    size[-2:] = resolution
    width = np.rint(np.minimum(o["channel_base"] / 2 / cutoff, o["channel_max"]))
    width[-1] = channels
    return {
        "cutoff": cutoff,
        "half_width": np.maximum(stopband, rate / 2) - cutoff,
        "rate": rate.astype(int),
        "size": size.astype(int),
        "channels": width.astype(int),
    }


def factors(s, i, o):
    """Return up, down, up_taps, down_taps of layer i."""
    if i == o["num_layers"]:
        return 1, 1, 1, 1
    before = max(i - 1, 0)
    rate = max(s["rate"][before], s["rate"][i]) * o["lrelu_upsampling"]
    up, down = rate // s["rate"][before], rate // s["rate"][i]
    taps = [o["filter_size"] * factor if factor > 1 else 1 for factor in (up, down)]
    return int(up), int(down), int(taps[0]), int(taps[1])


def filters(s, i, o):
    """Return the designed up and down filters of layer i, None for none."""
    up, _, up_taps, down_taps = factors(s, i, o)
    before = max(i - 1, 0)
    rate = s["rate"][before] * up
    first = second = None
    if up_taps > 1:
        first = firwin(up_taps, s["cutoff"][before], width=2 * s["half_width"][before], fs=rate)
    if down_taps > 1:
        cutoff, width = s["cutoff"][i], 2 * s["half_width"][i]
        if o["use_radial_filters"] and i < o["num_layers"] - o["num_critical"]:
            window = np.kaiser(down_taps, kaiser_beta(kaiser_atten(down_taps, width * 2 / rate)))
            second = np.zeros((down_taps, down_taps))
            for a in range(down_taps):
                for b in range(down_taps):
                    r = np.hypot(a - (down_taps - 1) / 2, b - (down_taps - 1) / 2) / rate
                    # J1(x) tends to x / 2.
                    jinc = j1(2 * np.pi * cutoff * r) / (np.pi * r) if r else cutoff
                    second[a, b] = jinc * window[a] * window[b]
            second = second / second.sum()
        else:
            second = firwin(down_taps, cutoff, width=width, fs=rate)
    return first, second


def low_pass(x, f):
    """Convolve (C, H, W) with a 2-D filter, or a 1-D one along both axes, without padding."""
    taps = len(f)
    if f.ndim == 1:
        for _ in range(2):
            h = x.shape[1] - taps + 1
            x = sum(f[taps - 1 - a] * x[:, a : a + h] for a in range(taps)).swapaxes(1, 2)
        return x
    h = x.shape[1] - taps + 1
    return sum(
        f[taps - 1 - a, taps - 1 - b] * x[:, a : a + h, b : b + h]
        for a in range(taps)
        for b in range(taps)
    )


def padded(x, before, after):
    """Zeros around (C, H, W); negative numbers cut."""
    x = np.pad(x, ((0, 0), *[(max(before, 0), max(after, 0))] * 2))
    h, w = x.shape[1:]
    first = max(-before, 0)
    return x[:, first : h - max(-after, 0), first : w - max(-after, 0)]


def fourier_features(p, s, w):
    """Return (C, size, size) of one sample."""
    name = "synthesis.input"
    t = dense(p, f"{name}.affine", w[None])[0]
    t = t / np.hypot(t[0], t[1])
    rotation = np.array([[t[0], -t[1], 0], [t[1], t[0], 0], [0, 0, 1]])
    translation = np.array([[1, 0, -t[2]], [0, 1, -t[3]], [0, 0, 1]])
    m = rotation @ translation @ p[f"{name}.transform"]
    phases = p[f"{name}.phases"] + p[f"{name}.freqs"] @ m[:2, 2]
    freqs = p[f"{name}.freqs"] @ m[:2, :2]
    band, rate, size = s["cutoff"][0], s["rate"][0], s["size"][0]
    fade = 1 - (np.sqrt((freqs**2).sum(axis=1)) - band) / (rate / 2 - band)
    amplitude = np.clip(fade, 0, 1)
    at = ((np.arange(size) + 0.5) / size * 2 - 1) * 0.5 * size / rate
    features = np.zeros((len(phases), size, size))
    for row, y in enumerate(at):
        for column, x in enumerate(at):
            wave = np.sin(2 * np.pi * (x * freqs[:, 0] + y * freqs[:, 1] + phases))
            features[:, row, column] = wave * amplitude
    weight = p[f"{name}.weight"]
    return np.einsum("oc,chw->ohw", weight / np.sqrt(len(weight)), features)


def layer(p, name, xs, ws, i, s, o):
    """Apply layer i to the samples xs with their latents ws."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    to_rgb = i == o["num_layers"]
    k = weight.shape[-1]
    styles = dense(p, f"{name}.affine", ws)
    if to_rgb:
        styles = styles / np.sqrt(weight.shape[1] * k * k)
    else:
        weight = weight / np.sqrt((weight**2).mean(axis=(1, 2, 3), keepdims=True))
        styles = styles / np.sqrt((styles**2).mean())
    up, down, up_taps, down_taps = factors(s, i, o)
    size, out_size = s["size"][max(i - 1, 0)], s["size"][i]
    total = (out_size - 1) * down + 1 - (size + k - 1) * up + up_taps + down_taps - 2
    before = (total + up) // 2
    results = []
    for x, style in zip(xs, styles):
        m = weight * style[None, :, None, None]
        if not to_rgb:
            m = m / np.sqrt((m**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
        m = m / np.sqrt(p[f"{name}.magnitude_ema"])
        x = padded(x, k - 1, k - 1)
        h = x.shape[1] - k + 1
        y = np.zeros((len(m), h, h))
        for a in range(k):
            for b in range(k):
                y += np.einsum("oi,ihw->ohw", m[:, :, a, b], x[:, a : a + h, b : b + h])
        y = y + bias[:, None, None]
        zeros = np.zeros((len(y), h * up, h * up))
        zeros[:, ::up, ::up] = y
        y = padded(zeros, before, total - before)
        if up_taps > 1:
            y = low_pass(y, p[f"{name}.up_filter"]) * up**2
        if not to_rgb:
            y = np.where(y >= 0, y, 0.2 * y) * np.sqrt(2)
        if o["conv_clamp"] is not None:
            y = np.clip(y, -o["conv_clamp"], o["conv_clamp"])
        if down_taps > 1:
            y = low_pass(y, p[f"{name}.down_filter"])
        results.append(y[:, ::down, ::down])
    return results


def generate(network, z, c=None, psi=1.0, cutoff=None):
    """Return float64 images (N, channels, R, R)."""
    p = {k: v.double().numpy() for k, v in network.state_dict().items()}
    init = network.init_kwargs
    o = {**DEFAULTS, **{k: v for k, v in init.items() if k in DEFAULTS}}
    s = schedule(init["img_resolution"], init["img_channels"], o)
    x = normalise(np.asarray(z, dtype=np.float64))
    if init["c_dim"]:
        x = np.hstack([x, normalise(dense(p, "mapping.embed", np.asarray(c, np.float64)))])
    for i in range(init["mapping_kwargs"].get("num_layers", 2)):
        x = dense(p, f"mapping.fc{i}", x, lr=0.01)
        x = np.where(x >= 0, x, 0.2 * x) * np.sqrt(2)
    count = o["num_layers"] + 2
    ws = np.repeat(x[:, None], count, axis=1)
    n = count if cutoff is None else cutoff
    ws[:, :n] = p["mapping.w_avg"] + psi * (ws[:, :n] - p["mapping.w_avg"])
    xs = [fourier_features(p, s, w[0]) for w in ws]
    for i in range(o["num_layers"] + 1):
        name = f"synthesis.L{i}_{s['size'][i]}_{s['channels'][i]}"
        xs = layer(p, name, xs, ws[:, i + 1], i, s, o)
    return np.stack(xs) * o["output_scale"]
