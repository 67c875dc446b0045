"""Turn what a label file stores, values, colours or outlines, into class ids."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX

from fastseg.data.dataset import Array, DataError, UnknownLabelError

Color = tuple[int, int, int]
_WIDENED = 257  # 8 bits are widened to 16 by this factor
_SHOWN = 5  # unknown values named in an error
_SUBPIXEL_BITS = 4
_ROUNDED = 0.1  # of the picture: so far out of it tools write fractions
_FEWEST = 2  # outlines that tell; one alone may be a dot in the picture's corner
_NEAR = 0.1  # of the picture: so far beyond its edges tools leave what they cut off
LIMIT_PX = 1 << 20  # OpenCV's coordinates are 32 bits


@dataclass(frozen=True)
class LabelCodec:
    """The class id of each stored value and of each colour.

    Attributes:
        ids: class id by stored value, for index PNGs.
        colors: class id by RGB colour, for colour masks.
        listed: by a list that a user wrote; listed_labels asks where that leaves a doubt.
        says_255: the list has a line for the value 255; else that is ignored.
        added: classes that are in no line of the list.
    """

    ids: Mapping[int, int]
    colors: Mapping[Color, int]
    listed: bool = False
    says_255: bool = False
    added: tuple[str, ...] = ()

    def decode(self, values: Array, place: str) -> Array:
        """Return the class map, (H, W) uint8 with 255 = ignore, of what read_label_file gave.

        Raises:
            UnknownLabelError: a value or a colour is not in the table; `place` names the file.
        """
        if values.ndim == 2:
            label_HW, unknown_HW = look_up(values, self.ids)
        else:
            codes_HW = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
            codes = {(r << 16) + (g << 8) + b: i for (r, g, b), i in self.colors.items()}
            label_HW, unknown_HW = look_up(codes_HW, codes or {-1: 0})
        if unknown_HW.any():
            raise self.unknown(values[unknown_HW], place)
        return label_HW

    def unknown(self, values: Array, place: str) -> UnknownLabelError:
        """Return the error of pixels that have no class: (N,) values or (N, 3) colours."""
        found, counts = np.unique(values, axis=0, return_counts=True)
        pixels = {str(value): int(n) for value, n in zip(found.tolist(), counts, strict=True)}
        shown = ", ".join(f"{value} ({n} px)" for value, n in list(pixels.items())[:_SHOWN])
        more = f" and {len(pixels) - _SHOWN} more" if len(pixels) > _SHOWN else ""
        kind, known, hint = "value", _ranges(self.ids), ""
        if values.ndim == 1 and found.max() > IGNORE_INDEX:
            hint = f". The label has {of_16_bits(found.tolist())}"
        if values.ndim == 2:  # one row of R, G, B per pixel
            kind, known = "colour", f"one of the {len(self.colors)} colours of the class list"
            grey = (values == values[:, :1]).all()
            hint = ". If these are class ids, save the label with one channel" if grey else ""
            if not self.colors:
                known = "a class list with colours, in lines such as '1 road 128 64 128'"
        return UnknownLabelError(
            f"{place}: unknown label {kind} {shown}{more}; expected {known}. Correct the file, "
            f"or add the {kind} to the class list ({IGNORE_INDEX} means: ignore){hint}",
            pixels,
        )


def of_16_bits(values: Iterable[int]) -> str:
    """Return what to do with labels of 16 bits that store these values."""
    how = f"divide them by {_WIDENED}"
    if any(value % _WIDENED for value in values):
        how = f"renumber them to 0 to {IGNORE_INDEX - 1}"
    return f"values of 16 bits: {how}, and save it with 8 bits"


def look_up(values_HW: Array, ids: Mapping[int, int]) -> tuple[Array, Array]:
    """Return the class ids and which pixels have none."""
    known = np.array(sorted(ids))
    mapped = np.array([ids[value] for value in known.tolist()], np.uint8)
    place_HW = np.minimum(np.searchsorted(known, values_HW), len(known) - 1)
    return mapped[place_HW], known[place_HW] != values_HW


def _ranges(ids: Mapping[int, int]) -> str:
    """Return stored values as text, e.g. "0 to 11 or 255"."""
    starts = [value for value in sorted(ids) if value - 1 not in ids]
    ends = [value for value in sorted(ids) if value + 1 not in ids]
    pairs = zip(starts, ends, strict=True)
    return " or ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in pairs)


def fill_polygon(label_HW: Array, corners_V2: Array, class_id: int) -> None:
    """Set the class of a polygon, in place.

    Args:
        label_HW: uint8 class map.
        corners_V2: x and y in pixels from the picture's top left corner, so that the first
            pixel's middle is (0.5, 0.5). Pixels that the outline touches are inside, which makes
            an object about half a pixel wider than pycocotools does.
        class_id: what to set.
    """
    centers_V2 = np.clip(corners_V2, -LIMIT_PX, LIMIT_PX) - 0.5
    fixed_V2 = np.rint(centers_V2 * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(label_HW, [fixed_V2], (class_id,), shift=_SUBPIXEL_BITS)


def refuse_outside(label_HW: Array, corners_V2: Array) -> None:
    """Raise a ValueError for an object that is not in the picture, nor near its edges.

    Those that rounding or the cutting of tiles left just beyond an edge draw nothing, rightly.
    """
    sides_2 = np.array(label_HW.shape[::-1])
    beyond_2 = np.maximum(corners_V2.min(0) - sides_2, -corners_V2.max(0))
    if (beyond_2 > np.maximum(1, _NEAR * sides_2)).any():
        (x, y), (width, height) = corners_V2[0], sides_2
        raise ValueError(f"lies outside of the picture of {width}x{height}, at ({x:g}, {y:g})")


def refuse_fractions(place: str, outlines: Iterable[Array]) -> None:
    """Raise a DataError where all corners of a split lie within 0 to 1, but for rounding."""
    count = 0
    for corners_V2 in outlines:
        if ((corners_V2 < -_ROUNDED) | (corners_V2 > 1 + _ROUNDED)).any():
            return
        count += 1
    if count >= _FEWEST:
        raise DataError(
            f"{place}: the corners of all {count} outlines lie within 0 to 1, as fractions of the "
            "picture do; write them in pixels"
        )


def ignore_box(label_HW: Array, left: float, top: float, right: float, bottom: float) -> None:
    """Ignore the pixels of a box, in place: the object in it is there, but nobody knows where.

    Args:
        label_HW: uint8 class map.
        left, top, right, bottom: in pixels; what lies outside of the picture counts for nothing.
    """
    edges = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    x0, y0, x1, y1 = (max(0, edge) for edge in edges)
    label_HW[y0:y1, x0:x1] = IGNORE_INDEX
