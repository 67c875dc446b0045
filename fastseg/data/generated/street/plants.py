"""Trees with leaves or without, bushes and hedges: outlines that noise makes ragged."""

from __future__ import annotations

import cv2
import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.noise import noise_window
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import Color, Pair, Point, Rng, across, shade

LEAVES: tuple[Color, ...] = (
    (62, 80, 40),
    (84, 96, 52),
    (48, 62, 38),
    (104, 108, 60),
    (120, 104, 56),
    (70, 66, 44),
)
BARK: tuple[Color, ...] = ((58, 50, 44), (78, 70, 62), (44, 40, 38))
_SMALLEST_TWIG_PX = 3.0


def draw_tree(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a tree that stands at x, z: trunk, then a leafy or a bare crown."""
    height = rng.uniform(4.5, 13.0)
    bark = BARK[rng.integers(len(BARK))]
    trunk_m = height * rng.uniform(0.015, 0.03)
    bare = rng.random() < 0.5
    crown_base = height * rng.uniform(0.15, 0.4)
    trunk = across((x - trunk_m, x + trunk_m), z, (0.0, height * (0.5 if bare else 0.7)))
    canvas.fill(trunk, bark, Class.TREE)
    crown_m = (height * rng.uniform(0.22, 0.42), (height - crown_base) / 2)
    middle = crown_base + crown_m[1]
    if bare:
        _draw_branches(canvas, rng, (x, z), height, bark)
        _draw_twigs(canvas, rng, (x, middle, z), crown_m, bark)
    else:
        _draw_leaves(canvas, rng, (x, middle, z), crown_m)


def draw_bush(canvas: Canvas, rng: Rng, x: Pair, z: float, height: float) -> None:
    """Draw a bush or a piece of hedge from x[0] to x[1]."""
    center = ((x[0] + x[1]) / 2, height * 0.45, z)
    _draw_leaves(canvas, rng, center, (abs(x[1] - x[0]) / 2, height * 0.55))


def _draw_leaves(canvas: Canvas, rng: Rng, center: Point, radius_m: Pair) -> None:
    window = _Window(canvas, center, radius_m)
    if window.empty:
        return
    tuft_px = 2 ** round(float(np.clip(np.log2(window.scale / 2), 1, 5)))
    rough = noise_window(rng, *window.shape, tuft_px)
    crown = window.roundness() + 0.35 * rough > 0.15
    leaf = LEAVES[rng.integers(len(LEAVES))]
    fine = noise_window(rng, *window.shape, 2)
    gain = 0.85 + 0.25 * rough + 0.25 * fine + 0.25 * window.upward()
    color = canvas.faded(shade(leaf, 0.6 + 0.6 * canvas.light.on((0, 1, 0))), center[2])
    window.paint(crown, np.maximum(gain, 0.2), color)


def _draw_twigs(canvas: Canvas, rng: Rng, center: Point, radius_m: Pair, bark: Color) -> None:
    window = _Window(canvas, center, radius_m)
    if window.empty:
        return
    inside = window.roundness()
    fine = noise_window(rng, *window.shape, 2)
    twigs = (fine > 1.5 - 1.1 * inside) & (inside > 0)
    window.paint(twigs, np.full(window.shape, 1.0, np.float32), canvas.faded(bark, center[2]))
    window.label(inside + 0.3 * noise_window(rng, *window.shape, 8) > 0.2)


def _draw_branches(canvas: Canvas, rng: Rng, foot: Pair, height: float, bark: Color) -> None:
    """Draw branches that fork level by level, as lines of falling width."""
    x, z = foot
    start_N2 = np.array([[x, height * 0.3]])
    angle_N, length = np.array([np.pi / 2]), height * rng.uniform(0.16, 0.22)
    width_m = height * 0.03
    while length * canvas.camera.pixels_per_m(z) > _SMALLEST_TWIG_PX and len(angle_N) < 64:
        step_N2 = length * np.stack((np.cos(angle_N), np.sin(angle_N)), -1)
        end_N2 = start_N2 + step_N2
        path_N23 = np.stack((_at_depth(start_N2, z), _at_depth(end_N2, z)), axis=1)
        canvas.lines(path_N23, bark, width_m, Class.TREE)
        fork_N = rng.uniform(0.2, 0.7, len(angle_N))
        angle_N = np.concatenate((angle_N - fork_N, angle_N + fork_N[::-1]))
        start_N2 = np.concatenate((end_N2, end_N2))
        length, width_m = length * 0.78, width_m * 0.6


def _at_depth(points_N2: Array, z: float) -> Array:
    return np.concatenate((points_N2, np.full((len(points_N2), 1), z)), axis=1)


class _Window:
    """The part of the picture around an ellipse, cut off at the picture's edges."""

    def __init__(self, canvas: Canvas, center: Point, radius_m: Pair) -> None:
        canvas.flush()
        self.scale = canvas.camera.pixels_per_m(center[2])
        column, row = canvas.camera.project(np.array(center)).tolist()
        radius_px = [max(radius * self.scale, 1.0) for radius in radius_m]
        height, width = canvas.label_HW.shape
        left, right = (round(column + s * radius_px[0] * 1.25) for s in (-1, 1))
        top, bottom = (round(row + s * radius_px[1] * 1.25) for s in (-1, 1))
        top, bottom = min(max(top, 0), height), min(max(bottom, 0), height)
        left, right = min(max(left, 0), width), min(max(right, 0), width)
        self._down_H1 = ((np.arange(top, bottom) - row) / radius_px[1])[:, None]
        self._across_1W = ((np.arange(left, right) - column) / radius_px[0])[None]
        self._pixels = canvas.pixels_HW4[top:bottom, left:right]
        self.shape = (self._pixels.shape[0], self._pixels.shape[1])
        self.empty = 0 in self.shape

    def roundness(self) -> Array:
        """Return 1 at the ellipse's middle, 0 on its edge, below 0 outside."""
        return np.asarray(1.0 - self._down_H1**2 - self._across_1W**2, np.float32)

    def upward(self) -> Array:
        """Return 1 at the ellipse's top, -1 at its bottom, as a column."""
        return np.asarray(-self._down_H1, np.float32)

    def paint(self, mask_HW: Array, gain_HW: Array, color: Color) -> None:
        """Colour the pixels of a mask, each with its own brightness, and make them Tree."""
        planes = [cv2.convertScaleAbs(gain_HW, alpha=value) for value in color]
        tile_HW4 = cv2.merge([*planes, np.full_like(planes[0], Class.TREE)])
        cv2.copyTo(tile_HW4, mask_HW.view(np.uint8), self._pixels)

    def label(self, mask_HW: Array) -> None:
        """Set the class of a mask to Tree."""
        self._pixels[..., 3][mask_HW] = Class.TREE
