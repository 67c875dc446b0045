"""Read images and label PNGs from disk, and refuse those that are damaged.

Pixels are decoded by OpenCV from bytes that numpy read, so names in any script work on every
system. Two things OpenCV does not do for labels are done here: it widens index PNGs (a palette to
colours, 1/2/4-bit samples to 8 bits) and, depending on its version, it fills what a truncated
file lacks with grey.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fastseg.data.dataset import Array, DataError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3  # colour types of the PNG specification, section 11.2.2
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def read_image(path: Path) -> Array:
    """Return a picture as (H, W, 3) uint8 RGB.

    Grey, RGBA, CMYK and 16-bit files are converted. A picture that a camera marked as rotated
    (EXIF orientation) is turned upright, so its label has to be drawn upright too.

    Raises:
        DataError: the file is missing, no picture, or truncated.
    """
    image_HW3 = _decode(path, _read(path), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image_HW3, cv2.COLOR_BGR2RGB)


def read_label_file(path: Path) -> Array:
    """Return the stored values of a label file.

    Returns:
        (H, W) uint8 or uint16 for index PNGs (also for those with a palette),
        (H, W, 3) uint8 RGB for colour masks; an alpha channel is dropped.

    Raises:
        DataError: the file is missing, no picture, or truncated.
    """
    data = _read(path)
    if data.startswith(_PNG_SIGNATURE) and data[25] in (_GRAY, _PALETTE):
        values_HW = _decode(path, _as_gray_png(data), cv2.IMREAD_UNCHANGED)
        bit_depth = data[24]
        return values_HW if bit_depth >= 8 else values_HW // (255 // (2**bit_depth - 1))
    values = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if values.ndim == 2:
        return values
    colors_HW3 = cv2.cvtColor(values[:, :, :3], cv2.COLOR_BGR2RGB)
    return colors_HW3 if colors_HW3.dtype == np.uint8 else (colors_HW3 // 257).astype(np.uint8)


def _decode(path: Path, data: bytes, flags: int) -> Array:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # e.g. a header that promises more pixels than OpenCV allows
        image = None
    if image is None:
        raise DataError(
            f"{path}: expected a picture, got {len(data)} bytes that cannot be decoded; "
            "replace the file, or remove it with its partner"
        )
    return image


def _read(path: Path) -> bytes:
    """Return the bytes of a file unless it is empty, truncated or (PNG) fails its checksums."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check name and rights"
        ) from error
    problem = ""
    if not data:
        problem = "is empty"
    elif data.startswith(_PNG_SIGNATURE):
        problem = _png_problem(data)
    elif data.startswith(_JPEG_START) and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):
        problem = "ends in the middle of the picture"  # no marker can occur inside a scan
    if problem:
        raise DataError(f"{path}: {problem}; copy it again from its source")
    return data


def _png_problem(data: bytes) -> str:
    kind = b""
    try:
        for kind, body, crc in _png_chunks(data):
            if zlib.crc32(kind + body) != crc:
                return f"is damaged in chunk {kind.decode('ascii', 'replace')}"
    except struct.error:
        return "ends in the middle of the picture"
    return "" if kind == b"IEND" else "ends in the middle of the picture"


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield type, body and checksum of each chunk up to IEND (PNG specification, section 5.3)."""
    position, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND" and position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        (crc,) = struct.unpack_from(">I", data, position + 8 + length)
        yield kind, data[position + 8 : position + 8 + length], crc
        position += 12 + length


def _as_gray_png(data: bytes) -> bytes:
    """Return a palette PNG as the grey PNG whose samples are the palette's indices."""
    parts = [_PNG_SIGNATURE]
    for kind, body, _ in _png_chunks(data):
        if kind == b"IHDR":
            body = body[:9] + bytes([_GRAY]) + body[10:]
        if kind not in (b"PLTE", b"tRNS"):
            checksum = zlib.crc32(kind + body)
            parts.append(struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", checksum))
    return b"".join(parts)
