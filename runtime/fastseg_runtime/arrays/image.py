"""Pictures as arrays: checked, resized with OpenCV or exactly the same way in numpy, read, written.

Sizes are mapped by pixel centres ("half-pixel"): output pixel i looks at input position
(i + 0.5) * in / out - 0.5, as torch's align_corners=False and OpenCV's INTER_LINEAR do.

PNG is written with the standard library, after ISO/IEC 15948, sections 5 and 11.
"""

import io
import os
import re
import struct
import zlib
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Optional, Tuple

import numpy as np

from fastseg_runtime.arrays.command import MOST_PIXELS, UsageError
from fastseg_runtime.arrays.metrics import Array

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_RGB, _PALETTE = 2, 3  # colour types
_PNG_LEVEL = 3  # of zlib: a third of the time of its default for a tenth more bytes
_BLOCK_ROWS = 16  # rows at a time: intermediate values stay in the CPU's cache
_MAX_SIDE = 1 << 15
_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
# Netpbm's magic number, then width, height and what is white, between them blanks and comments.
_NETPBM = re.compile(rb"P([2356])(?:\s+(?:#[^\r\n]*[\r\n]\s*)*0*(\d{1,5})(?!\d)){3}")

# ExtraSamples of a TIFF, a BigTIFF and a big-endian TIFF, but for what kind of alpha it is.
_ALPHA = (
    b"R\x01\x03\0\x01\0\0\0",
    b"R\x01\x03\0\x01" + bytes(7),
    b"\x01R\0\x03\0\0\0\x01\0",
)


def parse_size(text: str) -> Tuple[int, int]:
    """Return (width, height) in pixels of "480x360".

    Raises:
        UsageError: it is not of that form, or a side is 0 or more than a frame may have.
    """
    match = _SIZE.fullmatch(text)
    width, height = (int(side) for side in match.groups()) if match else (0, 0)
    if not (0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE):
        raise UsageError(
            f"cannot read the size {text!r:.80}; write WxH, 1 to {_MAX_SIDE - 1} pixels each, "
            "such as 1024x512"
        )
    return width, height


@lru_cache(maxsize=None)
def opencv() -> Optional[Any]:
    """Return the module cv2, or None where it is absent or does not load (no libGL, say)."""
    try:
        return import_module("cv2")
    except ImportError:
        return None


def as_array(frame: Any) -> Array:
    """Return a frame, or several, as an array; ValueError where that makes none of numbers."""
    mode = getattr(frame, "mode", None)  # of a PIL picture, which may be YCbCr or HSV
    if isinstance(mode, str) and mode != "RGB":
        raise ValueError(
            f"expected a frame of uint8 (H, W, 3), got a picture of mode {mode}; give "
            "picture.convert('RGB')"
        )
    try:
        image: Array = np.asarray(frame)
    except (RuntimeError, TypeError, ValueError):  # torch's bfloat16; rows of different lengths
        image = np.empty((), object)
    if image.dtype.kind not in "biuf" or not image.ndim:
        raise ValueError(
            f"expected a frame of uint8 (H, W, 3), got {type(frame).__name__}; give a picture as "
            "numpy array, or several of one size as a batch (N, H, W, 3)"
        )
    return image


def as_frame(frame: Any, color: str) -> Array:
    """Return a frame of "rgb" or "bgr" as as_rgb_uint8() does; ValueError for PIL's in "bgr"."""
    image_HW3 = as_rgb_uint8(frame)  # first: what follows is advice for RGB alone
    if color == "bgr" and isinstance(getattr(frame, "mode", None), str):
        raise ValueError(
            "a PIL picture is RGB, and this session takes bgr; give "
            "numpy.asarray(picture)[..., ::-1]"
        )
    return image_HW3


def as_rgb_uint8(frame: Any) -> Array:
    """Return a frame as an array after checking that it is (H, W, 3) uint8.

    Raises:
        ValueError: it is not; the message says how to convert it.
    """
    image_HW3 = as_array(frame)
    pixels = image_HW3.dtype == np.uint8 and image_HW3.ndim == 3 and image_HW3.shape[2] == 3
    if pixels and min(image_HW3.shape) > 0 and max(image_HW3.shape) < _MAX_SIDE:
        return image_HW3
    raise ValueError(
        f"expected a frame of uint8 (H, W, 3), got {image_HW3.dtype} {image_HW3.shape}; "
        + _advice(image_HW3)
    )


def _advice(image: Array) -> str:
    if image.ndim < 2:
        return "give a picture as numpy array"
    if not image.size or max(image.shape) >= _MAX_SIDE:
        return f"sides are 1 to {_MAX_SIDE - 1} pixels"
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        return (
            "repeat the grey channel: numpy.dstack([frame] * 3); of NV12: "
            "cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12), of I420: COLOR_YUV2RGB_I420"
        )
    if image.ndim == 3 and image.shape[2] == 2:
        return "of YUYV: cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUY2)"
    if image.ndim == 3 and image.shape[2] == 4:
        return "drop the alpha channel: frame[..., :3]"
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        return "put channels last: frame.transpose(1, 2, 0)"
    if image.dtype == np.uint16:
        return "16-bit pixels: (frame >> 8).astype('uint8')"
    if image.dtype.kind == "f":
        return "give the camera's bytes, 0 to 255, without normalisation"
    if image.dtype != np.uint8:
        return "give the camera's bytes, 0 to 255: frame.astype('uint8')"
    return "a batch of frames is (N, H, W, 3)"


def resize_bilinear(image_HW3: Array, width: int, height: int) -> Array:
    """Resize an image, uint8 with any strides, without anti-aliasing; by OpenCV if it is there."""
    out: Array = np.empty((height, width, 3), np.uint8)
    cv2 = opencv()
    if cv2 is None:
        BilinearResizer(image_HW3.shape[:2], (height, width))(image_HW3, out)
    else:
        cv2.resize(image_HW3, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return out


def resize_nearest(classes_HW: Array, width: int, height: int) -> Array:
    """Resize a class map: every pixel gets the id at its centre."""
    rows = np.take(classes_HW, nearest_index(classes_HW.shape[0], height), axis=0)
    columns = nearest_index(classes_HW.shape[1], width)
    resized: Array = np.take(rows, columns, axis=1)
    return resized


def nearest_index(size_in: int, size_out: int) -> Array:
    """Return, for each output pixel, the input pixel that its centre falls into."""
    centre = (2 * np.arange(size_out) + 1) * size_in
    index: Array = centre // (2 * size_out)  # integers: no rounding
    return index


def shrink(image_HW3: Array, out_hw3: Array, swap: bool = False) -> None:
    """Write a smaller image, each pixel the mean of what it covers; as OpenCV's INTER_AREA does.

    Args:
        image_HW3: uint8, at least as large as the result.
        out_hw3: uint8.
        swap: also exchange the first and the third channel.
    """
    cv2, (height, width) = opencv(), out_hw3.shape[:2]
    if cv2 is not None:
        cv2.resize(image_HW3, (width, height), dst=out_hw3, interpolation=cv2.INTER_AREA)
        if swap:
            cv2.cvtColor(out_hw3, cv2.COLOR_BGR2RGB, dst=out_hw3)
        return
    # In units of which a pixel has `height` down and `width` across all shares are whole numbers,
    # and their sums far below 2^53: exact in any order, the same in C++.
    tall, wide = image_HW3.shape[:2]
    edges = np.arange(width + 1) * wide
    columns = np.minimum(edges // width, wide - 1)
    shares = (edges - columns * width)[:, None].astype(np.float64)
    sums_W3 = np.zeros((wide + 1, 3))
    for row in range(height):
        top, bottom = row * tall, (row + 1) * tall
        first, stop = top // height, -(-bottom // height)
        weights = np.full(stop - first, height, np.float64)
        weights[0] -= top - first * height
        weights[-1] -= stop * height - bottom
        pixels_W3 = np.tensordot(weights, image_HW3[first:stop].astype(np.float64), 1)
        np.cumsum(width * pixels_W3, axis=0, out=sums_W3[1:])
        means_w3 = np.diff(sums_W3[columns] + shares * pixels_W3[columns], axis=0) / (tall * wide)
        means_w3 += 0.5  # the cast to bytes cuts off: together they round
        np.copyto(out_hw3[row], means_w3[:, ::-1] if swap else means_w3, casting="unsafe")


class BilinearResizer:
    """Resizes images of one size to another with buffers of its own; no array is allocated.

    Args:
        size_in: (height, width) of the images.
        size_out: (height, width) of the results.
        swap: also exchange the first and the third channel (BGR to RGB).
    """

    def __init__(
        self, size_in: Tuple[int, int], size_out: Tuple[int, int], swap: bool = False
    ) -> None:
        row_values, block = size_in[1] * 3, (_BLOCK_ROWS, size_out[1] * 3)
        self._top, self._bottom, weight_h = taps(size_in[0], size_out[0], size_in[0] / size_out[0])
        self._weight_h1 = weight_h[:, None]
        left, right, weight_w = taps(size_in[1], size_out[1], size_in[1] / size_out[1])
        channels = np.array([2, 1, 0] if swap else [0, 1, 2])
        self._left, self._right = ((x[:, None] * 3 + channels).ravel() for x in (left, right))
        self._weight_x = np.repeat(weight_w, 3)
        self._rows = np.empty((2, _BLOCK_ROWS, row_values), np.uint8)
        self._mixed = np.empty((_BLOCK_ROWS, row_values), np.float32)
        self._sides = np.empty((2, *block), np.float32)
        self._contiguous: Optional[Array] = None

    def __call__(self, image_HW3: Array, out_hw3: Array) -> None:
        """Resize an image into `out_hw3`, whose rows must have their pixels side by side."""
        image, out = _rows_view(self._with_dense_rows(image_HW3)), _rows_view(out_hw3)
        for start in range(0, len(out), _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, len(out))
            mixed = self._mix_rows(image, start, stop)
            np.copyto(out[start:stop], self._mix_columns(mixed), casting="unsafe")

    def _mix_rows(self, image: Array, start: int, stop: int) -> Array:
        top, bottom = self._rows[:, : stop - start]
        mixed: Array = self._mixed[: stop - start]
        np.take(image, self._top[start:stop], axis=0, out=top, mode="clip")
        np.take(image, self._bottom[start:stop], axis=0, out=bottom, mode="clip")
        np.subtract(bottom, top, out=mixed, dtype=np.float32)
        mixed *= self._weight_h1[start:stop]
        np.add(mixed, top, out=mixed, dtype=np.float32)
        return mixed

    def _mix_columns(self, rows: Array) -> Array:
        left, right = self._sides[:, : len(rows)]
        np.take(rows, self._left, axis=1, out=left, mode="clip")
        np.take(rows, self._right, axis=1, out=right, mode="clip")
        right -= left
        right *= self._weight_x
        right += left
        right += np.float32(0.5)  # the cast to bytes cuts off: together they round
        mixed: Array = right
        return mixed

    def _with_dense_rows(self, image_HW3: Array) -> Array:
        if image_HW3.strides[1:] == (3, 1):
            return image_HW3
        if self._contiguous is None:
            self._contiguous = np.empty(image_HW3.shape, np.uint8)
        np.copyto(self._contiguous, image_HW3)
        return self._contiguous


def _rows_view(image_HW3: Array) -> Array:
    """Return (H, W * 3) on the same memory; rows may be apart, as in a crop."""
    height, width, channels = image_HW3.shape
    return np.lib.stride_tricks.as_strided(
        image_HW3, (height, width * channels), (image_HW3.strides[0], 1)
    )


def taps(
    size_in: int, size_out: int, scale: float, offset: float = 0.0
) -> Tuple[Array, Array, Array]:
    """Return the two input neighbours of each output position, and the weight of the second.

    Args:
        size_in: pixels along one axis of the input.
        size_out: pixels along that axis of the output.
        scale: input pixels per output pixel; size_in / size_out unless something is cut off.
        offset: where the output begins in the input, pixels.
    """
    position = np.clip((np.arange(size_out) + 0.5) * scale + offset - 0.5, 0, size_in - 1)
    first = position.astype(np.intp)
    second = np.minimum(first + 1, size_in - 1)
    return first, second, (position - first).astype(np.float32)


def swap_channels(image_HW3: Array, out_HW3: Array) -> None:
    """Copy an image with its first and third channel exchanged (BGR to RGB, and back)."""
    for channel in range(3):  # six times faster than copying image[..., ::-1] at once
        out_HW3[..., channel] = image_HW3[..., 2 - channel]


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
    return content.startswith(JPEG_START) and is_cut_off_jpeg(content)


def is_cut_off_jpeg(content: bytes) -> bool:
    """Return whether a JPEG lacks its end.

    What follows the end is nobody's business: phones append videos, in which markers occur by
    chance. A thumbnail with an end of its own lies in a segment before the scan (ITU-T T.81, B.1).
    """
    at = len(JPEG_START)
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != _JPEG_SCAN:
        is_fill = content[at + 1 : at + 2] == b"\xff"
        at += 1 if is_fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content.find(_JPEG_END, at) < 0


def _decode(path: Path, content: bytes) -> Any:
    cv2, pillow = opencv(), None if opencv() else _pillow()
    if cv2 is None and pillow is None:
        raise ImageError(
            f"reading {path} needs OpenCV or Pillow: pip install opencv-python-headless"
        )
    try:
        image = _by_opencv(cv2, content) if cv2 else _by_pillow(pillow, content)
    except Exception as error:  # decoders raise many kinds for damaged files
        why = why_refused(error)
        raise ImageError(f"{path} is no picture that can be decoded: {why}") from error
    if image is None:
        raise ImageError(f"{path} is no picture that can be decoded ({len(content)} bytes)")
    return image


def why_refused(error: Exception) -> str:
    """Return what a decoder said of a picture, on one line."""
    if "MAX_IMAGE_PIXELS" in str(error):
        limit = os.environ.get(MOST_PIXELS, "")
        return f"it has more pixels than {MOST_PIXELS}={limit} allows; scale it down, or set more"
    return " ".join(str(error).split())


def _by_opencv(cv2: Any, content: bytes) -> Any:
    if not content:
        return None
    white = unscaled_white(content)
    # IMREAD_COLOR converts to 8 bits and three channels, and follows the EXIF orientation.
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if white else 0)
    image = cv2.imdecode(np.frombuffer(keep_colors(content), np.uint8), flags)
    if white and image is not None:
        image = np.rint(np.minimum(image, white) * np.float32(255 / white)).astype(np.uint8)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def keep_colors(content: bytes) -> bytes:
    """Return a picture file that OpenCV does not darken by its alpha, as it does with a TIFF."""
    if content.startswith((b"II", b"MM")):
        for alpha in _ALPHA:  # it is in them already, so nothing is left to do
            content = content.replace(alpha + b"\x02", alpha + b"\x01")
    return content


def unscaled_white(content: bytes) -> int:
    """Return which number is white in a PGM or PPM that OpenCV does not scale by it; else 0."""
    match = _NETPBM.match(content)
    kind, white = (match.group(1), int(match.group(2))) if match else (b"", 0)
    done_by_opencv = white in (0xFF, 0xFFFF) or (kind in b"23" and white < 0xFF)
    return 0 if done_by_opencv else white


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
