"""Noise textures for generated pictures: made once per process, cut out at random places.

Drawing fresh Gaussian noise takes longer than drawing the picture it goes on; a random window of
one big texture is as good.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from fastseg.data.dataset import Array

_SIDE_PX = 1024
_GRAIN_UNIT = 32  # grey levels of one deviation in the grain bank


@lru_cache(maxsize=16)
def _bank(cell_px: int, height: int, width: int) -> Array:
    """Return float32 noise of mean 0 and deviation 1 with blobs of about cell_px pixels."""
    rng = np.random.default_rng(cell_px)
    shape = (height // cell_px + 2, width // cell_px + 2)
    cells_HW: Array = rng.standard_normal(shape, np.float32)
    if cell_px > 1:
        cells_HW = cv2.resize(cells_HW, None, fx=cell_px, fy=cell_px, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cells_HW / cells_HW.std())


def _bank_side(window_px: int) -> int:
    """Return a side that leaves at least half of _SIDE_PX to choose a window's place from."""
    return max(_SIDE_PX, window_px + _SIDE_PX // 2)


def noise_window(rng: np.random.Generator, height: int, width: int, cell_px: int = 1) -> Array:
    """Return (height, width) float32 noise from a random place, to be read only.

    Mean 0, deviation 1; cell_px is the size of its blobs, 1 is white noise.
    """
    bank_HW = _bank(cell_px, _bank_side(height), _bank_side(width))
    top = rng.integers(bank_HW.shape[0] - height)
    left = rng.integers(bank_HW.shape[1] - width)
    return bank_HW[top : top + height, left : left + width]


def clouds(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return (height, width) float32 noise with blobs of all sizes, as clouds have."""
    coarse = 4  # clouds are soft: a quarter of the resolution is enough
    rows, columns = height // coarse + 1, width // coarse + 1
    octaves = [noise_window(rng, rows, columns, 32 >> n) / 2**n for n in range(4)]
    return np.asarray(cv2.resize(sum(octaves[1:], octaves[0]), (width, height)))


@lru_cache(maxsize=2)
def _grain_bank(height: int, width: int) -> Array:
    """Return (height, width, 3) uint8 white noise around 128, deviation _GRAIN_UNIT."""
    white_HW3: Array = np.random.default_rng(0).standard_normal((height, width, 3), np.float32)
    return np.asarray(np.clip(white_HW3 * _GRAIN_UNIT + 128, 0, 255), np.uint8)


def add_grain(rng: np.random.Generator, image_HW3: Array, deviation: float) -> Array:
    """Return a uint8 image with white noise of a deviation in grey levels on every channel."""
    height, width, _ = image_HW3.shape
    bank_HW3 = _grain_bank(_bank_side(height), _bank_side(width))
    top, left = rng.integers(bank_HW3.shape[0] - height), rng.integers(bank_HW3.shape[1] - width)
    grain_HW3 = bank_HW3[top : top + height, left : left + width]
    gain = deviation / _GRAIN_UNIT
    return np.asarray(cv2.addWeighted(image_HW3, 1.0, grain_HW3, gain, -128 * gain))
