"""Draw outlines of objects into a class map."""

from __future__ import annotations

import cv2
import numpy as np

from fastseg.data.dataset import Array

_SUBPIXEL_BITS = 4
_LIMIT_PX = 1 << 20  # OpenCV's coordinates are 32 bits


def fill_polygon(label_HW: Array, corners_V2: Array, class_id: int) -> None:
    """Set the class of a polygon, in place.

    Args:
        label_HW: uint8 class map.
        corners_V2: x and y in pixels from the picture's top left corner, so that the first
            pixel's middle is (0.5, 0.5). Pixels that the outline touches are inside, which makes
            an object about half a pixel wider than pycocotools does.
        class_id: what to set.
    """
    centers_V2 = np.clip(corners_V2, -_LIMIT_PX, _LIMIT_PX) - 0.5
    fixed_V2 = np.rint(centers_V2 * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(label_HW, [fixed_V2], (class_id,), shift=_SUBPIXEL_BITS)
