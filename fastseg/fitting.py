"""How a picture of any size comes into a network's input, and what of that is the picture.

"stretch" is a bilinear resize. "letterbox" is what the runtime does with a camera's frames, by its
own code, so that a network learns and is judged on what a device will give it.
"""

from typing import Any

import numpy as np
from fastseg_runtime.arrays.image import resize_bilinear, resize_nearest
from fastseg_runtime.bundle.manifest import FITS, IGNORE_INDEX, InputSpec
from fastseg_runtime.engines.frame_runner import FrameFit, place

from fastseg.data import Array

STRETCH, LETTERBOX = FITS


def fit_image(image_HW3: Array, spec: InputSpec) -> Array:
    """Return a uint8 picture in the network's input, (spec.height, spec.width, 3)."""
    if spec.resize == STRETCH:
        return resize_bilinear(image_HW3, spec.width, spec.height)
    fit = FrameFit(image_HW3.shape[:2], spec, (spec.height, spec.width), swap=False)
    fitted_HW3: Array = fit.to_input(image_HW3)[0]
    return fitted_HW3


def fit_labels(label_HW: Array, spec: InputSpec) -> Array:
    """Return class ids in the network's input; nobody judged what lies outside of the picture."""
    fitted_HW = np.full((spec.height, spec.width), IGNORE_INDEX, label_HW.dtype)
    inner_hw = covered(fitted_HW, label_HW.shape, spec)
    inner_hw[:] = resize_nearest(label_HW, inner_hw.shape[1], inner_hw.shape[0])
    return fitted_HW


def covered(values: Any, size: tuple[int, ...], spec: InputSpec | None) -> Any:
    """Return the part of an array or tensor (..., H, W) of the input's size that a picture covers.

    Args:
        values: a view of it is returned.
        size: (height, width) of the picture.
        spec: the network's input; None: pictures are stretched to it.
    """
    if spec is None or spec.resize == STRETCH:
        return values
    at = place((size[0], size[1]), spec)
    return values[..., at.top : at.top + at.height, at.left : at.left + at.width]
