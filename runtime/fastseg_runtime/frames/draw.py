"""Class maps as pictures: overlays and legends, in numpy alone."""

from typing import Sequence

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.frames.font import ADVANCE, HEIGHT, render

_SCALE, _MARGIN = 2, 6  # of a legend: pixels per dot, and around everything
_SWATCH = HEIGHT * _SCALE
_BLOCK_ROWS = 32  # rows at a time: what is mixed stays in the CPU's cache


def overlay(frame_HW3: Array, classes_HW: Array, palette_K3: Array, alpha: float = 0.5) -> Array:
    """Return the frame with the classes' colours mixed in.

    Args:
        frame_HW3: uint8.
        classes_HW: uint8 ids of the same size.
        palette_K3: uint8 colours in the frame's channel order; an id beyond it (ignored pixels)
            leaves the frame as it is.
        alpha: share of the colour, 0 to 1.

    Raises:
        ValueError: sizes differ, or alpha is outside 0 to 1.
    """
    if frame_HW3.shape[:2] != classes_HW.shape:
        raise ValueError(
            f"frame {frame_HW3.shape} and class map {classes_HW.shape} differ in size; "
            "infer() gives a map of the frame's size"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected 0 (frame) to 1 (colour)")
    share = round(alpha * 256)  # in 256ths, so that it stays in integers
    tint_K3 = palette_K3.astype(np.uint16) * np.uint16(share)
    result_HW3: Array = np.empty(frame_HW3.shape, np.uint8)
    mixed_block, tint_block = np.empty((2, _BLOCK_ROWS, *frame_HW3.shape[1:]), np.uint16)
    for top in range(0, len(frame_HW3), _BLOCK_ROWS):
        rows = slice(top, min(top + _BLOCK_ROWS, len(frame_HW3)))
        mixed, tint = mixed_block[: rows.stop - top], tint_block[: rows.stop - top]
        np.multiply(frame_HW3[rows], np.uint16(256 - share), out=mixed, dtype=np.uint16)
        np.take(tint_K3, classes_HW[rows], axis=0, out=tint, mode="clip")
        mixed += tint
        mixed >>= 8
        np.copyto(result_HW3[rows], mixed, casting="unsafe")
    if len(palette_K3) < 256:
        beyond = classes_HW >= len(palette_K3)
        result_HW3[beyond] = frame_HW3[beyond]
    return result_HW3


def legend(classes: Sequence[ClassInfo]) -> Array:
    """Return a white picture with a swatch and the name of each class, RGB uint8 (H, W, 3)."""
    longest = max((len(entry.name) for entry in classes), default=0)
    width = 3 * _MARGIN + _SWATCH + longest * ADVANCE * _SCALE
    line = _SWATCH + _MARGIN
    picture_HW3 = np.full((line * len(classes) + _MARGIN, width, 3), 255, np.uint8)
    for index, entry in enumerate(classes):
        top = _MARGIN + index * line
        picture_HW3[top : top + _SWATCH, _MARGIN : _MARGIN + _SWATCH] = entry.color
        text = np.kron(render(entry.name), np.ones((_SCALE, _SCALE), bool))
        left = 2 * _MARGIN + _SWATCH
        area_HW3 = picture_HW3[top : top + text.shape[0], left : left + text.shape[1]]
        area_HW3[text] = 0
    return picture_HW3
