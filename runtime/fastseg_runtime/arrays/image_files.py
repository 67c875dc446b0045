"""Read pictures of any common kind as RGB bytes; write PNG with the standard library.

PNG after its specification (ISO/IEC 15948), sections 5 and 11.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastseg_runtime.arrays.image import as_rgb_uint8, opencv
from fastseg_runtime.arrays.metrics import Array

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_RGB, _PALETTE = 2, 3  # colour types
_PNG_LEVEL = 3  # of zlib: a third of the time of its default for a tenth more bytes


class ImageError(ValueError):
    """A file is no picture that can be read here."""


def read_image(path: Path) -> Array:
    """Return a picture as (H, W, 3) uint8 RGB, upright if a camera marked it as rotated.

    Grey, palette, RGBA, CMYK and 16-bit pictures are converted.

    Raises:
        ImageError: missing, truncated, no picture, or no library here that reads it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    if _is_cut_off(content):
        raise ImageError(f"{path} ends in the middle of the picture; copy it again")
    image_HW3 = _decode(path, content)
    try:
        return as_rgb_uint8(image_HW3)
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error


def to_pillow(image_HW3: Array) -> Any:
    """Return an RGB picture as a Pillow image, as Core ML wants it.

    Raises:
        ImportError: Pillow is absent.
    """
    pillow = _pillow()
    if pillow is None:
        raise ImportError("Core ML takes pictures from Pillow: pip install pillow")
    return pillow[0].fromarray(image_HW3)


def encode_rgb(image_HW3: Array) -> bytes:
    """Return a PNG file of an RGB picture, uint8 (H, W, 3)."""
    return _encode_png(image_HW3, _RGB, b"")


def encode_class_map(classes_HW: Array, palette_K3: Array) -> bytes:
    """Return a PNG file whose pixels are class ids, shown in the colours of a palette.

    Args:
        classes_HW: uint8.
        palette_K3: uint8 RGB, up to 256 rows.
    """
    return _encode_png(
        classes_HW, _PALETTE, _png_chunk(b"PLTE", palette_K3.astype(np.uint8).tobytes())
    )


def _is_cut_off(content: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end; decoders fill the rest with grey."""
    if content.startswith(_PNG_START):
        return _PNG_END not in content
    if content.startswith(_JPEG_START):
        return content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
    return False


def _decode(path: Path, content: bytes) -> Any:
    cv2, pillow = opencv(), None if opencv() else _pillow()
    if cv2 is None and pillow is None:
        raise ImageError(
            f"reading {path} needs OpenCV or Pillow: pip install opencv-python-headless"
        )
    try:
        image = _by_opencv(cv2, content) if cv2 else _by_pillow(pillow, content)
    except Exception as error:  # decoders raise many kinds for damaged files
        raise ImageError(f"{path} is no picture that can be decoded: {error}") from error
    if image is None:
        raise ImageError(f"{path} is no picture that can be decoded ({len(content)} bytes)")
    return image


def _by_opencv(cv2: Any, content: bytes) -> Any:
    if not content:
        return None
    # IMREAD_COLOR converts to 8 bits and three channels, and follows the EXIF orientation.
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    return Image, ImageOps


def _by_pillow(pillow: Any, content: bytes) -> Any:
    image_module, operations = pillow
    with image_module.open(io.BytesIO(content)) as file:
        image = operations.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits: convert() would cut off instead of scaling
            grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.stack([grey] * 3, axis=-1)
        return np.asarray(image.convert("RGB"))


def _encode_png(pixels: Array, color_type: int, palette: bytes) -> bytes:
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each starts with filter type 0
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    data = _png_chunk(b"IDAT", zlib.compress(rows.data, _PNG_LEVEL))
    return _PNG_START + _png_chunk(b"IHDR", header) + palette + data + _png_chunk(_PNG_END, b"")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
