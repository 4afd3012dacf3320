"""Image files byte by byte: of the kinds that Pillow cannot write, and damaged on purpose."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(colour=(10, 20, 30), size=(8, 8)) -> bytes:
    return encode(Image.new("RGB", size, colour))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(values: np.ndarray) -> bytes:
    """Encode (H, W) or (H, W, C), C = 2 (grey, alpha), 3 or 4, as PNG of 16 bits."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """Encode RGB of one colour, whatever the size, in few bytes and without the pixels."""
    packer, rows = zlib.compressobj(9), b"\0" + b"\x7f" * (3 * width)
    packed = b"".join(packer.compress(rows) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    packed: bool = False,
    planar: bool = False,
    white_is_zero: bool = False,
    tags: dict[int, tuple[str, list[int]]] | None = None,
) -> bytes:
    """Encode (H, W) or (H, W, C) of any type as TIFF, one strip per plane.

    Args:
        values: the samples.
        order: of the bytes, "<" or ">".
        packed: compress by Deflate.
        planar: one plane after another.
        white_is_zero: grey counts down.
        tags: others, or other values: tag → ("H" or "I", values).
    """
    values = np.atleast_3d(values)
    height, width, channels = values.shape
    planes = [values[:, :, i] for i in range(channels)] if planar else [values]
    strips = [p.astype(values.dtype.newbyteorder(order)).tobytes() for p in planes]
    strips = [zlib.compress(s) for s in strips] if packed else strips
    grey = 0 if white_is_zero else 1
    known: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * values.dtype.itemsize] * channels),
        259: ("H", [8 if packed else 1]),
        262: ("H", [2 if channels > 2 else grey]),
        273: ("I", [0] * len(strips)),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(s) for s in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [SAMPLE_FORMATS[values.dtype.kind]] * channels),
        **({338: ("H", [2])} if channels == 4 else {}),
        **(tags or {}),
    }
    start = 8 + 2 + 12 * len(known) + 4
    data_start = start + sum(max(0, struct.calcsize(k) * len(v)) for k, v in known.values())
    ends = np.cumsum([data_start, *map(len, strips)]).tolist()
    known[273] = ("I", ends[:-1])
    directory, extra = struct.pack(f"{order}H", len(known)), b""
    for tag, (kind, numbers) in sorted(known.items()):
        body = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            place, extra = struct.pack(f"{order}I", start + len(extra)), extra + body
        else:
            place = body.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    whole = head + directory + b"\0" * 4 + extra
    return whole.ljust(data_start, b"\0") + b"".join(strips)


def pnm(values: np.ndarray, top: int) -> bytes:
    """Encode (H, W) or (H, W, 3) as binary PGM or PPM; more than 255 levels take two bytes."""
    height, width = values.shape[:2]
    kind = "P5" if values.ndim == 2 else "P6"
    return (
        f"{kind} {width} {height} {top}\n".encode()
        + values.astype(">u2" if top > 255 else np.uint8).tobytes()
    )


def pfm(values: np.ndarray) -> bytes:
    """Encode float (H, W) as PFM, whose rows run upwards."""
    height, width = values.shape
    return f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].astype("<f4").tobytes()


def icc_profile(name: str, colorants: tuple[tuple[float, ...], ...], version: int = 2) -> bytes:
    """Return an RGB profile of so many tags that it has a name and colorants."""
    if version == 2:
        described = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0"
    else:
        text = name.encode("utf-16-be")
        described = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text
    elements = {b"desc": described}
    for tag, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants):
        fixed = [round(value * 65536) for value in xyz]
        elements[tag] = b"XYZ \0\0\0\0" + struct.pack(">3i", *fixed)
    table, body, start = struct.pack(">I", len(elements)), b"", 132 + 12 * len(elements)
    for tag, element in elements.items():
        table += struct.pack(">4sII", tag, start + len(body), len(element))
        body += element
    return struct.pack(">I", start + len(body)).ljust(128, b"\0") + table + body
