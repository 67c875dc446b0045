"""Random variations of a picture, drawn once as numbers and applied by OpenCV or by torch.

Everything is one affine map of coordinates (scale, crop, flips, rotation), one affine map of
colours (brightness, contrast, saturation, tint, exposure, haze) and one blur, so a crop costs one
resampling. A second crop may be pasted over the first: a rectangle of it (CutMix), or its pixels
of some classes (copy-paste).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX

from fastseg.data import Array

MID_GREY = 128.0  # outside of the picture: zero after normalisation
LUMA_3 = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
VEIL = 220.0  # what haze fades into, bytes: bright, not white
CENTRE_MARGIN = 0.25  # a pixel that a crop is drawn around stays this share off its edges


SHARES = ("flip", "blur", "class_centred", "flip_vertical", "haze", "cutmix", "copy_paste")
CHANGES = ("brightness", "contrast", "saturation", "tint", "rotation", "exposure", "rare_share")
LEAST_SIGMA = 0.3  # of a blur, pixels: less changes nothing


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
        flip_vertical: probability of an upside-down image, for pictures from above.
        rotation: largest angle, degrees; for pictures from above 180.
        exposure: largest change, stops: 1 doubles or halves all values.
        haze: largest share of a bright veil.
        cutmix: probability that a rectangle is another picture's (Yun et al. 2019, 1905.04899).
        copy_paste: probability that rare things of another picture are pasted in, with their
            labels (Ghiasi et al. 2021, 2012.07177).
        rare_share: classes are rare that have fewer of the training's pixels.
        function: "package.module:function" of the user's, which is given each crop, uint8 (h, w, 3)
            and (h, w), and a numpy Generator, and returns picture and labels of the same form.
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
    flip_vertical: float = 0.0
    rotation: float = 0.0
    exposure: float = 0.0
    haze: float = 0.0
    cutmix: float = 0.0
    copy_paste: float = 0.0
    rare_share: float = 0.01
    function: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in CHANGES:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.scale_min <= self.scale_max:
            raise ValueError(
                f"scale_min is {self.scale_min}, scale_max {self.scale_max}; expected more than 0, "
                "and the larger one last"
            )
        if not self.blur_sigma >= LEAST_SIGMA:
            raise ValueError(f"blur_sigma is {self.blur_sigma}; expected {LEAST_SIGMA} or more")


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


@dataclass(frozen=True)
class Region:
    """What of a second crop is pasted over a first one.

    Attributes:
        box: left, top, right, bottom, pixels of the crop; None: the whole crop.
        classes: ids whose pixels are pasted; empty: all.
    """

    box: tuple[int, int, int, int] | None = None
    classes: tuple[int, ...] = ()

    def mask(self, label_hw: Array) -> Array:
        """Return which pixels of the second crop are taken, (h, w) bool."""
        if self.box is None:
            return np.isin(label_hw, self.classes)
        left, top, right, bottom = self.box
        mask_hw: Array = np.zeros(label_hw.shape, bool)
        mask_hw[top:bottom, left:right] = True
        return mask_hw


def draw_box(rng: np.random.Generator, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a rectangle of the crop's shape, whose area is any share of it with equal chance."""
    share = np.sqrt(rng.random())
    width, height = (max(1, round(side * share)) for side in crop)
    left, top = (
        int(rng.integers(side - part + 1)) for side, part in zip(crop, (width, height), strict=True)
    )
    return left, top, left + width, top + height


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
    blur_sigma = (
        rng.uniform(LEAST_SIGMA, options.blur_sigma) if rng.random() < options.blur else 0.0
    )
    color_34 = _draw_color(rng, options)
    # What is off by default draws last and only where it is on: the rest stays as it was.
    map_23 = _crop_map(scale, left, top, flip, crop_width) @ _draw_turn(rng, options, crop)
    return Variation(map_23, _draw_light(rng, options, color_34), blur_sigma)


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


def _draw_turn(rng: np.random.Generator, options: Augmentation, crop: tuple[int, int]) -> Array:
    """Return a (3, 3) map of the crop onto itself: upside down, turned about its middle."""
    turn_33 = np.eye(3)
    if options.flip_vertical and rng.random() < options.flip_vertical:
        turn_33 = np.array([[1.0, 0, 0], [0, -1, crop[1] - 1], [0, 0, 1]])
    if options.rotation:
        angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation))
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = (crop[0] - 1) / 2, (crop[1] - 1) / 2
        turn_33 = turn_33 @ np.array(
            [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]]
        )
    return turn_33


def _draw_light(rng: np.random.Generator, options: Augmentation, color_34: Array) -> Array:
    if options.exposure:
        color_34 = color_34 * 2 ** rng.uniform(-options.exposure, options.exposure)
    if options.haze:
        veil = rng.uniform(0, options.haze)
        color_34 = color_34 * (1 - veil)
        color_34[:, 3] += veil * VEIL
    return color_34
