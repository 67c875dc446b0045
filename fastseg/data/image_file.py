"""Read images and label PNGs from disk, and refuse those that are damaged.

Pixels are decoded by OpenCV from bytes that numpy read, so names in any script work on every
system. What OpenCV does not do, or does according to its version, is done here: it widens index
PNGs (a palette to colours, 1/2/4-bit samples to 8 bits), it fills what a truncated file lacks with
grey, and it does not say that it turned a picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.command import limit_pictures
from fastseg_runtime.arrays.image import (
    JPEG_START,
    is_cut_off_jpeg,
    keep_colors,
    unscaled_white,
    why_refused,
)

from fastseg.data.dataset import Array, DataError

limit_pictures()
import cv2  # noqa: E402  # which reads the limit when it is loaded

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 33  # signature and IHDR
_GRAY, _PALETTE = 0, 3  # colour types of the PNG specification, section 11.2.2
_GIF_START = b"GIF8"
_TIFF_STARTS = (b"II", b"MM")
_LAYOUTS = {  # of TIFF (*) and BigTIFF (+): where the directory lies, its length, an entry
    b"II*\0": ("<4xI", "<H", "<HHIH2x"),
    b"MM\0*": (">4xI", ">H", ">HHIH2x"),
    b"II+\0": ("<8xQ", "<Q", "<HHQH6x"),
    b"MM\0+": (">8xQ", ">Q", ">HHQH6x"),
}
_JPEG_APP1, _JPEG_SCAN, _JPEG_FILL = 0xE1, 0xDA, 0xFF
_ORIENTATION, _SAMPLES = 0x0112, 0x0115
UPRIGHT = 1
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

Range = tuple[float, float]  # stored values that become 0 and 255


@dataclass(frozen=True)
class Picture:
    """A picture as it is to be seen.

    Attributes:
        image_HW3: uint8, RGB, upright.
        orientation: the EXIF mark by which it was turned upright; 1 where it was not.
    """

    image_HW3: Array
    orientation: int = UPRIGHT


@dataclass(frozen=True)
class StoredLabel:
    """A label file as it is stored.

    Attributes:
        values: (H, W) uint8 or uint16 for one value per pixel, also for those that stand for an
            entry of a palette; (H, W, 3) uint8 RGB for colours, without alpha.
        palette_P3: the palette that the values stand in, uint8 RGB; None where there is none.
    """

    values: Array
    palette_P3: Array | None = None


def read_image(path: Path) -> Array:
    """Return a picture as (H, W, 3) uint8 RGB; see read_picture."""
    return read_picture(path).image_HW3


def read_picture(path: Path, image_range: Range | None = None) -> Picture:
    """Read a picture.

    Grey, RGBA and CMYK files are converted. A picture that a camera marked as rotated (EXIF
    orientation) is turned upright.

    Args:
        path: the file.
        image_range: the stored values that become 0 and 255. None: what a PPM says itself, of
            8 bits all, of 16 bits the upper 8; other files have to be told.

    Raises:
        DataError: the file is missing, no picture, truncated, or neither 8 nor 16 bits wide.
    """
    data = _read(path)
    if image_range is None and (white := unscaled_white(data)):
        image_range = (0, white)
    pixels = _to_bytes(path, _decode_picture(path, data), image_range)
    to_rgb = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
    orientation = _exif_orientation(data)
    turned_by_opencv = data.startswith(_TIFF_STARTS)  # TIFF alone, whatever the flags say
    to_turn = UPRIGHT if turned_by_opencv else orientation
    return Picture(turn(cv2.cvtColor(pixels, to_rgb), to_turn), orientation)


def stored_range(path: Path) -> tuple[Range, float]:
    """Return the least and greatest stored number of a picture, and the greatest that fits."""
    stored = _decode(path, _read(path), cv2.IMREAD_UNCHANGED)
    limit = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else np.inf
    return _finite_range(path, stored), limit


def _finite_range(path: Path, stored: Array) -> Range:
    finite = stored[np.isfinite(stored)]  # a sensor's holes are NaN or infinite
    if not finite.size:
        raise DataError(f"{path}: stores no finite number; replace it, or remove it with its label")
    return float(finite.min()), float(finite.max())


def turn(pixels: Array, orientation: int) -> Array:
    """Turn a picture or a class map upright, as EXIF 2.3 says of tag 0x0112."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_bytes(path: Path, stored: Array, image_range: Range | None) -> Array:
    if image_range is not None:
        low, high = image_range
        exact = np.float32 if stored.itemsize <= 2 else np.float64
        within = np.nan_to_num(stored.astype(exact)).clip(low, high)
        scaled: Array = np.rint((within - low) * (255 / (high - low)))
        return scaled.astype(np.uint8)
    if stored.dtype == np.uint16:
        return (stored >> 8).astype(np.uint8)
    if stored.dtype != np.uint8:
        least, most = _finite_range(path, stored)
        raise DataError(
            f"{path}: stores {stored.dtype} from {least:.10g} to {most:.10g}; say with "
            "--image-range LOW:HIGH which values are black and white"
        )
    return stored


def _exif_orientation(data: bytes) -> int:
    """Return the orientation that EXIF data say, 1 where there are none."""
    value = _tag(_exif_of(data), _ORIENTATION)
    return value if 1 <= value <= max(SIDEWAYS) else UPRIGHT


def _tag(tiff: bytes, wanted: int) -> int:
    """Return the number from 0 to 65535 that TIFF data say for a tag, 1 where there is none."""
    if tiff[:4] not in _LAYOUTS:
        return 1
    place, length, layout = _LAYOUTS[tiff[:4]]
    try:
        (first,) = struct.unpack_from(place, tiff)
        (count,) = struct.unpack_from(length, tiff, first)
        for entry in range(count):
            at = first + struct.calcsize(length) + entry * struct.calcsize(layout)
            tag, _, _, value = struct.unpack_from(layout, tiff, at)
            if tag == wanted:
                return int(value)
    except (struct.error, OverflowError):
        pass  # it ends in the middle: as if it said nothing, as OpenCV has it
    return 1


def _exif_of(data: bytes) -> bytes:
    """Return the EXIF data of a JPEG, PNG, WebP or TIFF, which OpenCV turns by; b"" where none are.

    They lie in a place of their own: the word alone may also stand in a comment. A TIFF is such
    data itself.
    """
    try:
        if data.startswith(_TIFF_STARTS):
            return data
        if data.startswith(JPEG_START):
            return _exif_of_jpeg(data)
        if data.startswith(_PNG_SIGNATURE):
            return next((body for kind, body, _ in _png_chunks(data) if kind == b"eXIf"), b"")
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _exif_of_webp(data)
    except struct.error:
        pass  # it ends in the middle
    return b""


def _exif_of_jpeg(data: bytes) -> bytes:
    """Walk the segments before the picture (ITU T.81, B.1) to APP1's Exif (CIPA DC-008, 4.5)."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", data, at + 1)
        body = data[at + 4 : at + 2 + length]
        if marker == _JPEG_SCAN:
            break
        if marker == _JPEG_APP1 and body.startswith(b"Exif\0"):
            return body[6:]
        at += 1 if marker == _JPEG_FILL else 2 + length
    return b""


def _exif_of_webp(data: bytes) -> bytes:
    at = 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            body = data[at + 8 : at + 8 + length]
            return body.removeprefix(b"Exif\0\0")
        at += 8 + length + length % 2
    return b""


def read_label_file(path: Path) -> Array:
    """Return the values of read_stored_label without their palette."""
    return read_stored_label(path).values


def read_stored_label(path: Path) -> StoredLabel:
    """Return what a label file stores.

    Black and white of 16 bits are those of 8.

    Raises:
        DataError: the file is missing, no picture, or truncated, its colours are not of 8 bits, or
            transparent pixels hide such as are seen elsewhere.
    """
    data = _read(path)
    if data.startswith(_PNG_SIGNATURE) and data[25] in (_GRAY, _PALETTE):
        values_HW = _decode(path, _as_gray_png(data), cv2.IMREAD_UNCHANGED)
        bit_depth = data[24]
        if bit_depth < 8:
            values_HW = values_HW // (255 // (2**bit_depth - 1))
        return StoredLabel(_narrowed(values_HW), _palette(data))
    values = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if values.ndim == 2:
        return StoredLabel(_narrowed(values))
    colors_HW3 = cv2.cvtColor(values[:, :, :3], cv2.COLOR_BGR2RGB)
    if values.shape[2] == 4:
        _refuse_hidden(path, colors_HW3, values[:, :, 3])
    if colors_HW3.dtype != np.uint8:
        return StoredLabel(_colors_of_8_bits(path, colors_HW3))
    if data.startswith(_GIF_START) and (colors_HW3 == colors_HW3[:, :, :1]).all():
        return StoredLabel(colors_HW3[:, :, 0])  # GIF knows no grey: it has a palette of greys
    return StoredLabel(colors_HW3)


def _refuse_hidden(path: Path, colors_HW3: Array, alpha_HW: Array) -> None:
    """Refuse colours under transparent pixels, but for black and a background of its own colour.

    Programs that erase leave there what they erased.
    """
    transparent_HW = alpha_HW == 0
    if not transparent_HW.any() or transparent_HW.all():
        return
    codes_HW = colors_HW3.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    hidden, seen = ({*np.unique(codes_HW[m])} for m in (transparent_HW, ~transparent_HW))
    hidden -= {0}
    if len(hidden) > 1 or hidden & seen:
        raise DataError(
            f"{path}: {transparent_HW.mean():.1%} of it are transparent, over colours that are "
            "classes elsewhere; fill these pixels with their class and save it without alpha"
        )


def _narrowed(values_HW: Array) -> Array:
    is_wide = values_HW.dtype == np.uint16 and np.isin(values_HW, (0, 0xFFFF)).all()
    return (values_HW & 0xFF).astype(np.uint8) if is_wide else values_HW


def _colors_of_8_bits(path: Path, colors_HW3: Array) -> Array:
    if colors_HW3.dtype != np.uint16 or (colors_HW3 % 257).any():
        is_grey = (colors_HW3 == colors_HW3[:, :, :1]).all()
        hint = ", or with one channel if these are class ids" if is_grey else ""
        raise DataError(
            f"{path}: stores colours as {colors_HW3.dtype} up to {colors_HW3.max():.10g}, which "
            f"are not 257 times those of 8 bits; save it with 8 bits a channel{hint}"
        )
    return (colors_HW3 // 257).astype(np.uint8)


def _palette(data: bytes) -> Array | None:
    """Return the palette of a PNG; None where it has none, or grey n for each value n."""
    entries = next((body for kind, body, _ in _png_chunks(data) if kind == b"PLTE"), b"")
    palette_P3 = np.frombuffer(entries[: len(entries) // 3 * 3], np.uint8).reshape(-1, 3)
    if data[25] != _PALETTE or (palette_P3 == np.arange(len(palette_P3))[:, None]).all():
        return None
    return palette_P3


def _decode_picture(path: Path, data: bytes) -> Array:
    """Return (H, W) greys, or (H, W, 3 or 4) with blue first, of any type."""
    if data.startswith(_TIFF_STARTS):
        stored = _decode(path, data, cv2.IMREAD_UNCHANGED)
        # Of wide greys OpenCV makes no colours. Alpha, and of 16 bits colours that are marked as
        # greys, come as stored only the other way.
        is_grey = stored.ndim == 2 and _tag(data, _SAMPLES) <= 1
        if stored.itemsize > 2 or is_grey or stored.shape[2:] == (3,):
            return stored
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode(path, data, flags)


def _decode(path: Path, data: bytes, flags: int) -> Array:
    why = ""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # e.g. a header that promises more pixels than OpenCV allows
        image, why = None, f" ({why_refused(error)})"
    if image is None:
        raise DataError(
            f"{path}: expected a picture, got {len(data)} bytes that cannot be decoded{why}; "
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
    elif data.startswith(JPEG_START) and is_cut_off_jpeg(data):
        problem = "ends in the middle of the picture"
    if problem:
        raise DataError(f"{path}: {problem}; copy it again from its source")
    return keep_colors(data)


def _png_problem(data: bytes) -> str:
    kind = b""
    if data[12:16] != b"IHDR" or len(data) < _PNG_HEADER_BYTES:
        return "has no header of a PNG"
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
