"""Generated scans of one organ in ultrasound- or MR-like noise: a binary mask, grey pictures."""

from __future__ import annotations

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.dataset import Array
from fastseg.data.generated.noise import clouds, noise_window
from fastseg.data.generated.procedural import ProceduralDataset, open_procedural

CLASSES = (ClassInfo("Background", (0, 0, 0)), ClassInfo("Organ", (220, 70, 80)))


def open_organ(location: str, split: str) -> ProceduralDataset:
    """Open scans of an organ; location holds options as for "synthetic"."""
    return open_procedural("synthetic-organ", location, split, CLASSES, draw_organ)


def draw_organ(rng: np.random.Generator, width: int, height: int) -> tuple[Array, Array]:
    """Draw a scan: tissue, look-alikes, one organ, then the noise of a scanner.

    Returns:
        image (height, width, 3) uint8 grey as RGB, and class ids (height, width) uint8.
    """
    size = min(width, height)
    tissue_HW = 95 + 22 * clouds(rng, height, width)
    contrast = rng.choice((-1, 1)) * rng.uniform(22, 55)
    for _ in range(int(rng.integers(3, 9))):  # vessels and cysts that are no organ
        center = rng.uniform((0, 0), (width, height))
        blob = _outline(rng, center, size * rng.uniform(0.02, 0.07))
        _add(tissue_HW, blob, float(rng.uniform(-60, 60)))
    center = rng.uniform((0.35 * width, 0.35 * height), (0.65 * width, 0.65 * height))
    organ = _outline(rng, center, size * rng.uniform(0.14, 0.28))
    label_HW: Array = np.zeros((height, width), np.uint8)
    cv2.fillPoly(label_HW, [organ], (1,))
    _add(tissue_HW, organ, contrast)
    cv2.polylines(tissue_HW, [organ], True, (float(rng.uniform(90, 190)),), max(1, size // 150))
    scanner = _ultrasound if rng.random() < 0.5 else _magnetic_resonance
    grey_HW = np.clip(scanner(rng, tissue_HW), 0, 255).astype(np.uint8)
    return cv2.cvtColor(grey_HW, cv2.COLOR_GRAY2RGB), label_HW


def _outline(rng: np.random.Generator, center_2: Array, radius_px: float) -> Array:
    """Return a smooth closed curve, (72, 2) int32: an ellipse with waves on its radius."""
    angle_N = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wave_N = np.ones(72)
    for harmonic in (2, 3, 4, 5):
        wave_N += rng.normal(0, 0.16 / harmonic) * np.cos(harmonic * angle_N + rng.uniform(0, 6.3))
    stretch = rng.uniform(0.7, 1.4)
    curve_N2 = np.stack((np.cos(angle_N) * stretch, np.sin(angle_N) / stretch), axis=-1)
    turn = rng.uniform(0, np.pi)
    turn_22 = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    points_N2 = center_2 + radius_px * wave_N[:, None] * curve_N2 @ turn_22
    return np.asarray(np.rint(points_N2), np.int32)


def _add(tissue_HW: Array, outline_N2: Array, contrast: float) -> None:
    """Make the inside of a curve brighter or darker, with a soft edge, in place."""
    inside_HW: Array = np.zeros(tissue_HW.shape, np.float32)
    cv2.fillPoly(inside_HW, [outline_N2], (contrast,))
    tissue_HW += cv2.blur(inside_HW, (3, 3))


def _ultrasound(rng: np.random.Generator, tissue_HW: Array) -> Array:
    """Multiply by speckle, wider than deep, and cut out the fan of a curved probe."""
    height, width = tissue_HW.shape
    real_HW, imaginary_HW = (noise_window(rng, height, width) for _ in range(2))
    speckle_HW = cv2.blur(np.hypot(real_HW, imaginary_HW), (5, 2)) / 1.25  # mean of Rayleigh
    rows_H1, columns_1W = np.arange(height)[:, None], np.arange(width)[None] - width / 2
    depth_HW = np.hypot(rows_H1 + 0.25 * height, columns_1W)
    fan_HW = (np.abs(columns_1W) < 0.75 * (rows_H1 + 0.25 * height)) & (depth_HW > 0.3 * height)
    fading_H1 = 1 - rng.uniform(0.0, 0.4) * rows_H1 / height
    return np.asarray(tissue_HW * speckle_HW * fan_HW * fading_H1)


def _magnetic_resonance(rng: np.random.Generator, tissue_HW: Array) -> Array:
    """Add a slow brightness field and Rician noise, the magnitude of a noisy complex signal."""
    height, width = tissue_HW.shape
    bias_HW = 1 + 0.25 * noise_window(rng, height, width, 128)
    deviation = rng.uniform(4, 14)
    real_HW = tissue_HW * bias_HW + deviation * noise_window(rng, height, width)
    return np.hypot(real_HW, deviation * noise_window(rng, height, width))
