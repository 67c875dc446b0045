"""Where a camera's frame lies in the network's input, and back again.

"stretch" fills the input; "letterbox" keeps the frame's proportions, centres it and fills the
rest with the mean colour, which the normalisation turns into zero.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from fastseg_runtime.arrays.image import BilinearResizer, opencv, swap_channels
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import InputSpec


@dataclass(frozen=True)
class Placement:
    """The part of the network's input that the frame covers, in pixels."""

    top: int
    left: int
    height: int
    width: int


def place(frame_size: Tuple[int, int], spec: InputSpec) -> Placement:
    """Return where a frame of (height, width) lies in the input.

    Raises:
        ValueError: the manifest asks for a way of resizing that is not known here.
    """
    if spec.resize == "stretch":
        return Placement(0, 0, spec.height, spec.width)
    if spec.resize != "letterbox":
        raise ValueError(f"input.resize is {spec.resize!r}; expected 'stretch' or 'letterbox'")
    scale = min(spec.height / frame_size[0], spec.width / frame_size[1])
    height, width = (max(1, round(side * scale)) for side in frame_size)
    return Placement((spec.height - height) // 2, (spec.width - width) // 2, height, width)


class FrameFit:
    """Brings frames of one size into the network's input and class maps back to that size.

    Args:
        frame_size: (height, width) of the frames.
        spec: the network's input.
        mask_size: (height, width) of the class maps that the engine gives.
        swap: frames are BGR.
    """

    def __init__(
        self, frame_size: Tuple[int, int], spec: InputSpec, mask_size: Tuple[int, int], swap: bool
    ) -> None:
        self.key = (frame_size, swap)
        self.frame_size, self._swap = frame_size, swap
        self.placement = place(frame_size, spec)
        self.input_1HW3 = np.full((1, spec.height, spec.width, 3), round(spec.mean), np.uint8)
        at = self.placement
        self._inner_hw3 = self.input_1HW3[0, at.top : at.top + at.height]
        self._inner_hw3 = self._inner_hw3[:, at.left : at.left + at.width]
        self._same_size = frame_size == (at.height, at.width)
        self._fills_input = frame_size == (spec.height, spec.width)
        self._resizer: Optional[BilinearResizer] = None
        self._rows = _mask_index(at.top, at.height, frame_size[0], spec.height, mask_size[0])
        self._columns = _mask_index(at.left, at.width, frame_size[1], spec.width, mask_size[1])
        self._same_mask = mask_size == frame_size and self._fills_input
        self._wide = np.empty((mask_size[0], frame_size[1]), np.uint8)

    def to_input(self, frame_HW3: Array) -> Array:
        """Return the network's input, (1, H, W, 3) RGB; valid until the next call.

        A frame that fits as it is goes in without a copy.
        """
        if self._fills_input and not self._swap and frame_HW3.flags.c_contiguous:
            return frame_HW3[None]
        if self._same_size and self._swap:
            swap_channels(frame_HW3, self._inner_hw3)
        elif self._same_size:
            np.copyto(self._inner_hw3, frame_HW3)
        else:
            self._resize(frame_HW3)
        return self.input_1HW3

    def to_frame(self, classes_hw: Array, out_HW: Array) -> None:
        """Write a class map, (h, w) uint8, into one of the frame's size."""
        if self._same_mask:
            np.copyto(out_HW, classes_hw)
            return
        np.take(classes_hw, self._columns, axis=1, out=self._wide, mode="clip")
        np.take(self._wide, self._rows, axis=0, out=out_HW, mode="clip")

    def _resize(self, frame_HW3: Array) -> None:
        cv2 = opencv()
        at = self.placement
        if cv2 is None:
            if self._resizer is None:
                self._resizer = BilinearResizer(self.frame_size, (at.height, at.width), self._swap)
            self._resizer(frame_HW3, self._inner_hw3)
            return
        cv2.resize(frame_HW3, (at.width, at.height), dst=self._inner_hw3)
        if self._swap:
            cv2.cvtColor(self._inner_hw3, cv2.COLOR_BGR2RGB, dst=self._inner_hw3)


def _mask_index(offset: int, covered: int, frame: int, whole: int, mask: int) -> Array:
    """Return the mask pixel under the centre of each pixel of the frame, along one axis."""
    twice_centre = (2 * np.arange(frame) + 1) * covered + 2 * frame * offset
    index: Array = twice_centre * mask // (2 * frame * whole)  # integers: no rounding
    return np.minimum(index, mask - 1)
