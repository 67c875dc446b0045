"""Names and colours of classes that nobody named, and palettes as arrays."""

from typing import List, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo


def numbered_classes(count: int) -> Tuple[ClassInfo, ...]:
    """Return classes class_0, class_1, ... in the colours of the PASCAL VOC colour map."""
    return tuple(ClassInfo(f"class_{index}", _voc_color(index)) for index in range(count))


def palette(classes: Sequence[ClassInfo]) -> Array:
    """Return the colours of all 256 ids, (256, 3) uint8 RGB; black where there is no class."""
    colors: Array = np.zeros((256, 3), np.uint8)
    colors[: len(classes)] = [entry.color for entry in classes]
    return colors


def _voc_color(index: int) -> Tuple[int, int, int]:
    # VOC devkit's VOClabelcolormap.m: bits 0, 1, 2 of the index go to the high bits of R, G, B.
    channels: List[int] = [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (index >> channel & 1) << shift
        index >>= 3
    return channels[0], channels[1], channels[2]
