"""Class ids from logits, for artifacts that leave upsampling and argmax to the app's side.

The same arithmetic as the graphs' own: bilinear by pixel centres, ties to the lowest id. Logits of
FastSegNet cover its padding too: they grow by a whole factor, and what hangs over is cut off.
"""

from typing import Tuple

import numpy as np

from fastseg_runtime.arrays.image import taps
from fastseg_runtime.arrays.metrics import Array


class LogitsToClasses:
    """Turns logits of one size into class maps of another, in buffers of its own.

    Args:
        logits_size: (h, w).
        mask_size: (height, width) of the class map.
        padded: the logits cover the image and its padding; False: the image alone.
    """

    def __init__(
        self, logits_size: Tuple[int, int], mask_size: Tuple[int, int], padded: bool = True
    ) -> None:
        factors = [-(-big // small) for small, big in zip(logits_size, mask_size)]
        shared = padded and factors[0] == factors[1]
        scales = [
            1 / factors[0] if shared else small / big for small, big in zip(logits_size, mask_size)
        ]
        self._top, self._bottom, self._down = taps(logits_size[0], mask_size[0], scales[0])
        self._left, self._right, self._across = taps(logits_size[1], mask_size[1], scales[1])
        self.classes_HW = np.empty(mask_size, np.uint8)
        self._best, self._plane, self._mixed = np.empty((3, *mask_size), np.float32)
        self._better = np.empty(mask_size, bool)

    def __call__(self, logits_Khw: Array) -> Array:
        """Return the ids of the largest upsampled logits, (H, W) uint8; reused by the next call."""
        self.classes_HW.fill(0)
        self._upsample(logits_Khw[0], self._best)
        for index in range(1, len(logits_Khw)):
            self._upsample(logits_Khw[index], self._plane)
            np.greater(self._plane, self._best, out=self._better)
            np.copyto(self.classes_HW, index, where=self._better, casting="unsafe")
            np.maximum(self._plane, self._best, out=self._best)
        return self.classes_HW

    def _upsample(self, plane_hw: Array, out_HW: Array) -> None:
        left, right = plane_hw[:, self._left], plane_hw[:, self._right]
        wide_hW = left + (right - left) * self._across
        np.take(wide_hW, self._top, axis=0, out=out_HW, mode="clip")
        np.take(wide_hW, self._bottom, axis=0, out=self._mixed, mode="clip")
        self._mixed -= out_HW
        self._mixed *= self._down[:, None]
        out_HW += self._mixed
