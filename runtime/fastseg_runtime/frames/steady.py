"""Class maps of a video without flicker: a pixel keeps its class until the new one is believed.

At once where the network is sure of it; sooner where it was beside the pixel one frame before, and
has moved; and in any case when it comes twice in a row.
"""

from typing import Optional

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.frame_runner import CERTAIN

# As shares of 255, and the reach as a share of the width: of those tried on CamVid's val clip
# (15 Hz) and two dashcam clips, what halves the flicker for the least mIoU (docs/runtime.md).
SURE, MOVED_SURE, REACH = 0.70, 0.53, 1 / 80


class Steadier:
    """Damps the flicker of one video; frames must come in order, and a new scene starts anew."""

    def __init__(self) -> None:
        self._shown: Optional[Array] = None
        self._before = np.empty(0)

    def __call__(self, classes_HW: Array, confidence_HW: Array) -> Array:
        """Return the class map to show of what infer() gave, valid until the next call."""
        if self._shown is None or self._shown.shape != classes_HW.shape:
            self._shown, self._before = classes_HW.copy(), classes_HW.copy()
            return self._shown
        reach = max(1, round(classes_HW.shape[1] * REACH))
        moved = np.zeros(classes_HW.shape, bool)
        np.equal(classes_HW[:, reach:], self._before[:, :-reach], out=moved[:, reach:])
        moved[:, :-reach] |= classes_HW[:, :-reach] == self._before[:, reach:]
        moved &= confidence_HW >= round(MOVED_SURE * CERTAIN)
        believed = (classes_HW == self._before) | moved
        believed |= confidence_HW >= round(SURE * CERTAIN)
        np.copyto(self._shown, classes_HW, where=believed)
        np.copyto(self._before, classes_HW)
        return self._shown


def flicker(first_HW: Array, second_HW: Array, third_HW: Array) -> float:
    """Return the share of pixels that go from a class to another and back in three class maps."""
    back = (first_HW == third_HW) & (first_HW != second_HW)
    return float(back.mean())
