"""From clean colours to a photograph: surface texture, vignette, exposure, blur, sensor noise."""

from __future__ import annotations

import cv2
import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.noise import noise_window
from fastseg.data.street.canvas import Class

# class -> strength of grain, of blotches; relative to brightness
TEXTURE = {
    Class.SKY: (0.0, 0.0),
    Class.BUILDING: (0.06, 0.06),
    Class.POLE: (0.03, 0.03),
    Class.ROAD: (0.07, 0.05),
    Class.PAVEMENT: (0.06, 0.06),
    Class.TREE: (0.16, 0.12),
    Class.SIGN: (0.03, 0.03),
    Class.FENCE: (0.06, 0.05),
    Class.CAR: (0.03, 0.06),
    Class.PEDESTRIAN: (0.08, 0.08),
    Class.BICYCLIST: (0.08, 0.08),
}


def photograph(rng: np.random.Generator, image_HW3: Array, label_HW: Array) -> Array:
    """Return the picture as a camera would take it, (H, W, 3) uint8."""
    gain_HW = _surface(rng, label_HW) * _vignette(rng, *label_HW.shape)
    balance_3 = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    photo_HW3 = image_HW3 * gain_HW[..., None] * balance_3
    sigma_px = rng.uniform(0.0, 1.1) * label_HW.shape[0] / 360
    if sigma_px > 0.3:
        photo_HW3 = cv2.GaussianBlur(photo_HW3, (0, 0), sigma_px)
    height, width = label_HW.shape
    grain_HW3 = noise_window(rng, height, 3 * width).reshape(height, width, 3)
    photo_HW3 += grain_HW3 * np.float32(rng.uniform(0.5, 6.0))
    return cv2.LUT(np.clip(photo_HW3, 0, 255).astype(np.uint8), _tone_curve(rng))


def _surface(rng: np.random.Generator, label_HW: Array) -> Array:
    height, width = label_HW.shape
    strength = np.array([TEXTURE[class_id] for class_id in Class], np.float32)
    grain_HW, blotch_HW = strength[label_HW, 0], strength[label_HW, 1]
    grain_HW *= noise_window(rng, height, width, 2.0)
    blotch_HW *= noise_window(rng, height, width, float(rng.choice((8.0, 16.0, 32.0))))
    return np.asarray(np.maximum(1.0 + grain_HW + blotch_HW, np.float32(0.2)))


def _vignette(rng: np.random.Generator, height: int, width: int) -> Array:
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    dark, slope = rng.uniform(0.0, 0.25), rng.uniform(-0.15, 0.15)
    return np.asarray(1.0 + slope * rows - dark * (rows**2 + columns**2) / 2, np.float32)


def _tone_curve(rng: np.random.Generator) -> Array:
    """Return exposure, contrast and gamma as a table of 256 values."""
    exposure, gamma = rng.uniform(0.65, 1.3), rng.uniform(0.75, 1.35)
    black = rng.uniform(0.0, 0.06)
    light = np.linspace(0, 1, 256)
    curve = black + (1 - black) * np.clip(exposure * light, 0, 1) ** gamma
    return np.rint(curve * 255).astype(np.uint8)
