"""Random variations of a picture, drawn once as numbers and applied by OpenCV or by torch.

Everything is one affine map of coordinates (scale, crop, flip), one affine map of colours
(brightness, contrast, saturation, tint) and one blur, so a crop costs one resampling.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX

from fastseg.data import Array

MID_GREY = 128.0  # outside of the picture: zero after normalisation
LUMA_3 = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
CENTRE_MARGIN = 0.25  # a pixel that a crop is drawn around stays this share off its edges


@dataclass(frozen=True)
class Augmentation:
    """How far pictures may be varied.

    Attributes:
        scale_min: smallest zoom; 0.5 halves the picture.
        scale_max: largest zoom. Zooms are drawn evenly on a logarithmic scale.
        flip: probability of a mirror image.
        brightness: largest shift, as a share of white.
        contrast: largest relative change.
        saturation: largest relative change.
        tint: largest relative change of one channel.
        blur: probability of a Gaussian blur.
        blur_sigma: largest standard deviation of the blur, pixels.
        class_centred: probability that a crop is laid around a pixel of a class drawn evenly
            from those in the picture (RegSeg's class-uniform sampling, arXiv:2111.09957).
    """

    scale_min: float = 0.5
    scale_max: float = 2.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.3
    saturation: float = 0.3
    tint: float = 0.1
    blur: float = 0.2
    blur_sigma: float = 1.5
    class_centred: float = 0.0


@dataclass(frozen=True)
class Variation:
    """One drawn variation.

    Attributes:
        image_from_crop_23: maps output pixels (x, y, 1) to input pixels; pixel centres are whole
            numbers, as in OpenCV.
        color_34: maps (r, g, b, 1) to new r, g, b; bytes.
        blur_sigma: pixels of the output; 0 for none.
    """

    image_from_crop_23: Array
    color_34: Array
    blur_sigma: float


def draw_variation(
    rng: np.random.Generator, options: Augmentation, label_HW: Array, crop: tuple[int, int]
) -> Variation:
    """Draw a variation of a picture to crops of (width, height) pixels.

    Equal states of rng draw equal ones. The class map is for crops around a class.
    """
    scale = float(np.exp(rng.uniform(np.log(options.scale_min), np.log(options.scale_max))))
    centre = _class_pixel(rng, label_HW) if rng.random() < options.class_centred else None
    (height, width), (crop_width, crop_height) = label_HW.shape, crop
    left = _draw_start(rng, width, crop_width / scale, centre[0] if centre else None)
    top = _draw_start(rng, height, crop_height / scale, centre[1] if centre else None)
    flip = rng.random() < options.flip
    blur_sigma = rng.uniform(0.3, options.blur_sigma) if rng.random() < options.blur else 0.0
    return Variation(
        _crop_map(scale, left, top, flip, crop_width), _draw_color(rng, options), blur_sigma
    )


def apply_variation(
    variation: Variation, image_HW3: Array, label_HW: Array, crop: tuple[int, int]
) -> tuple[Array, Array]:
    """Return the varied (h, w, 3) uint8 picture and its (h, w) class map.

    What lies outside of the picture is grey and ignored.
    """
    matrix_23 = variation.image_from_crop_23
    image_hw3 = cv2.warpAffine(
        image_HW3,
        matrix_23,
        crop,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=(MID_GREY, MID_GREY, MID_GREY),
    )
    label_hw = cv2.warpAffine(
        label_HW,
        matrix_23,
        crop,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderValue=IGNORE_INDEX,
    )
    if variation.blur_sigma:
        image_hw3 = cv2.GaussianBlur(image_hw3, (0, 0), variation.blur_sigma)
    return cv2.transform(image_hw3, variation.color_34), label_hw


def _class_pixel(rng: np.random.Generator, label_HW: Array) -> tuple[int, int] | None:
    """Return (x, y) of a random pixel of a random class that occurs, None if nothing is judged."""
    present = np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256)[:IGNORE_INDEX])
    if not present.size:
        return None
    pixels = np.flatnonzero(label_HW == rng.choice(present))
    row, column = divmod(int(rng.choice(pixels)), label_HW.shape[1])
    return column, row


def _draw_start(rng: np.random.Generator, size: int, visible: float, centre: int | None) -> float:
    """Return where along one axis the crop starts, in pixels of the picture.

    The crop lies inside the picture; if it is larger, the picture lies inside the crop.
    """
    low, high = min(0.0, size - visible), max(0.0, size - visible)
    if centre is None:
        return float(rng.uniform(low, high))
    ahead = rng.uniform(CENTRE_MARGIN, 1 - CENTRE_MARGIN) * visible
    return float(np.clip(centre + 0.5 - ahead, low, high))


def _crop_map(scale: float, left: float, top: float, flip: bool, width: int) -> Array:
    # Half a pixel: edges are at whole numbers in `left` and `top`, centres in the map.
    step_x, start_x = (-1 / scale, width / scale) if flip else (1 / scale, 0.0)
    return np.array(
        [
            [step_x, 0.0, left + start_x + step_x / 2 - 0.5],
            [0.0, 1 / scale, top + 0.5 / scale - 0.5],
        ]
    )


def _draw_color(rng: np.random.Generator, options: Augmentation) -> Array:
    saturation = 1 + rng.uniform(-1, 1) * options.saturation
    contrast = 1 + rng.uniform(-1, 1) * options.contrast
    tint_3 = 1 + rng.uniform(-1, 1, 3) * options.tint
    shift = 255 * rng.uniform(-1, 1) * options.brightness
    mix_33 = saturation * np.eye(3) + (1 - saturation) * LUMA_3
    bias = MID_GREY * (1 - contrast) + shift
    return np.hstack([contrast * tint_3[:, None] * mix_33, np.full((3, 1), bias)])
