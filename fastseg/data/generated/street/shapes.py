"""Colours and shapes: what is drawn, before a camera sees it.

World coordinates are metres: x to the right, y up from the road, z ahead of the camera.
Shape letters: P polygons, V vertices.
"""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import Array

Rng = np.random.Generator
Color = tuple[float, float, float]  # RGB, 0 to 255
Pair = tuple[float, float]  # from and to, or sideways and up
Point = tuple[float, float, float]
_ANGLE_12 = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_CIRCLE_12_2 = np.stack((np.cos(_ANGLE_12), np.sin(_ANGLE_12)), axis=-1)


def mix(a: Color, b: Color, share_of_b: float) -> Color:
    """Return the colour between two."""
    s = share_of_b
    return (a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), a[2] + s * (b[2] - a[2]))


def shade(color: Color, factor: float) -> Color:
    """Return a colour in more or less light."""
    r, g, b = color
    return (min(r * factor, 255.0), min(g * factor, 255.0), min(b * factor, 255.0))


def along(x: float, z: tuple[float, float], y: tuple[float, float]) -> Array:
    """Return a wall that runs along the street, (1, 4, 3)."""
    return np.array([[(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])]])


def across(x: tuple[float, float], z: float, y: tuple[float, float]) -> Array:
    """Return a wall that faces the camera, (1, 4, 3)."""
    return np.array([[(x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z), (x[1], y[0], z)]])


def flat(x: tuple[float, float], z: tuple[float, float], y: float = 0.0) -> Array:
    """Return a rectangle on the ground, (1, 4, 3)."""
    return np.array([[(x[0], y, z[0]), (x[0], y, z[1]), (x[1], y, z[1]), (x[1], y, z[0])]])


def strip(x: tuple[float, float], z_N: Array, y: float = 0.0) -> Array:
    """Return a band on the ground that follows the bend of the street, (1, 2N, 3)."""
    y_N = np.full_like(z_N, y)
    left, right = (np.stack((np.full_like(z_N, edge), y_N, z_N), axis=-1) for edge in x)
    return np.concatenate((left, right[::-1]))[None]


def outline(points: Array, x: float, z: float) -> Array:
    """Return a flat figure of (V, 2) points (sideways, up) that stands at x, z, as (1, V, 3)."""
    figure_1V3 = np.empty((1, len(points), 3))
    figure_1V3[0, :, :2] = points
    figure_1V3[..., 0] += x
    figure_1V3[..., 2] = z
    return figure_1V3


def disc(center: tuple[float, float], radius_m: float, stretch: float = 1.0) -> Array:
    """Return a 12-cornered circle as (12, 2) points; stretch makes it higher than wide."""
    return np.asarray(center + _CIRCLE_12_2 * (radius_m, radius_m * stretch))
