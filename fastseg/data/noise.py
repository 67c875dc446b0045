"""Noise textures for generated pictures: made once per process, cut out at random places.

Drawing fresh Gaussian noise takes longer than drawing the picture it goes on, so each texture is
one fixed square with wrap-around edges, and a random window of it is as good as new noise.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from fastseg.data.dataset import Array

_SIDE = 1024


@lru_cache(maxsize=8)
def noise_bank(cell_px: float) -> Array:
    """Return (1024, 1024) float32 noise of mean 0 and deviation 1 with blobs of about cell_px.

    Below 2 the noise is white.
    """
    rng = np.random.default_rng(int(cell_px * 1000))
    white_HW = rng.standard_normal((_SIDE, _SIDE)).astype(np.float32)
    if cell_px < 2:
        return white_HW
    padded_HW = np.pad(white_HW, _SIDE // 4, mode="wrap")
    smooth_HW = cv2.GaussianBlur(padded_HW, (0, 0), cell_px / 2)
    inner_HW = smooth_HW[_SIDE // 4 : -_SIDE // 4, _SIDE // 4 : -_SIDE // 4]
    return np.asarray(inner_HW / inner_HW.std(), np.float32)


def noise_window(rng: np.random.Generator, height: int, width: int, cell_px: float = 1.0) -> Array:
    """Return (height, width) float32 noise of mean 0 and deviation 1 from a random place."""
    top, left = (int(v) for v in rng.integers(0, _SIDE, 2))
    bank_HW = noise_bank(cell_px)
    if top + height <= _SIDE and left + width <= _SIDE:
        return bank_HW[top : top + height, left : left + width]
    rows = np.arange(top, top + height) % _SIDE
    columns = np.arange(left, left + width) % _SIDE
    return np.asarray(bank_HW[np.ix_(rows, columns)])


def fractal_window(rng: np.random.Generator, height: int, width: int, cell_px: int = 64) -> Array:
    """Return (height, width) float32 cloud-like noise: octaves from cell_px down to cell_px / 8."""
    total_HW = np.zeros((height, width), np.float32)
    for octave in range(4):
        total_HW += noise_window(rng, height, width, cell_px / 2**octave) * np.float32(0.5**octave)
    return total_HW
