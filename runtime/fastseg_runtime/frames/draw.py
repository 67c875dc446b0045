"""Class maps as pictures: overlays and legends, in numpy alone.

A legend needs no font file: its letters are the usual 5x7 dot matrix.
"""

from typing import Sequence

import numpy as np

from fastseg_runtime.arrays.image import as_array, as_rgb_uint8
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo

HEIGHT, ADVANCE = 9, 6  # pixels of a line of text, and from one letter to the next
# Five columns a letter, from space to "~"; bit 0 is the top row.
_COLUMNS = bytes.fromhex(
    "0000000000 00005F0000 0007000700 147F147F14 242A7F2A12 2313086462 3649562050 0008070300"
    "001C224100 0041221C00 2A1C7F1C2A 08083E0808 0080703000 0808080808 0000606000 2010080402"
    "3E5149453E 00427F4000 7249494946 2141494D33 1814127F10 2745454539 3C4A494931 4121110907"
    "3649494936 464949291E 0000140000 0040340000 0008142241 1414141414 0041221408 0201590906"
    "3E415D594E 7C1211127C 7F49494936 3E41414122 7F4141413E 7F49494941 7F09090901 3E41415173"
    "7F0808087F 00417F4100 2040413F01 7F08142241 7F40404040 7F021C027F 7F0408107F 3E4141413E"
    "7F09090906 3E4151215E 7F09192946 2649494932 03017F0103 3F4040403F 1F2040201F 3F4038403F"
    "6314081463 0304780403 6159494D43 007F414141 0204081020 004141417F 0402010204 4040404040"
    "0003070800 2054547840 7F28444438 3844444428 384444287F 3854545418 00087E0902 18A4A49C78"
    "7F08040478 00447D4000 2040403D00 7F10284400 00417F4000 7C04780478 7C08040478 3844444438"
    "FC18242418 18242418FC 7C08040408 4854545424 04043F4424 3C4040207C 1C2040201C 3C4030403C"
    "4428102844 4C9090907C 4464544C44 0008364100 0000770000 0041360800 0201020402"
)
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
        ValueError: sizes or types differ, or alpha is outside 0 to 1.
    """
    frame_HW3, classes_HW = as_rgb_uint8(frame_HW3), as_array(classes_HW)
    if classes_HW.dtype != np.uint8:
        raise ValueError(f"expected ids of uint8, as infer() gives them, got {classes_HW.dtype}")
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


def render(text: str) -> Array:
    """Return a mask of the text, bool (HEIGHT, ADVANCE * letters); unknown letters are "?"."""
    mask = np.zeros((HEIGHT, ADVANCE * len(text)), bool)
    for position, letter in enumerate(text):
        index = 5 * (ord(letter if " " <= letter <= "~" else "?") - ord(" "))
        columns = np.frombuffer(_COLUMNS, np.uint8, count=5, offset=index)
        rows = np.unpackbits(columns[:, None], axis=1, bitorder="little").T
        mask[:8, position * ADVANCE : position * ADVANCE + 5] = rows
    return mask
