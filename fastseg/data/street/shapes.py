"""Polygons in world coordinates, as (P, V, 3) arrays of metres."""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import Array


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
    left = np.stack((np.full_like(z_N, x[0]), np.full_like(z_N, y), z_N), axis=-1)
    right = np.stack((np.full_like(z_N, x[1]), np.full_like(z_N, y), z_N), axis=-1)
    return np.concatenate((left, right[::-1]))[None]


def rectangles(x0_P: Array, x1_P: Array, y0_P: Array, y1_P: Array, z: float) -> Array:
    """Return rectangles that face the camera at one depth, (P, 4, 3)."""
    corners = ((x0_P, y0_P), (x0_P, y1_P), (x1_P, y1_P), (x1_P, y0_P))
    return np.stack([np.stack((x, y, np.full_like(x, z)), -1) for x, y in corners], axis=1)


def outline(points: Array, x: float, z: float) -> Array:
    """Return a flat figure of (V, 2) points (sideways, up) that stands at x, z, as (1, V, 3)."""
    figure = np.asarray(points, np.float64)
    return np.stack((figure[:, 0] + x, figure[:, 1], np.full(len(figure), z)), axis=-1)[None]


def disc(center: tuple[float, float], radius_m: float, stretch: float = 1.0) -> Array:
    """Return a 12-cornered circle as (12, 2) points; stretch makes it higher than wide."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack(
        (
            center[0] + radius_m * np.cos(angle),
            center[1] + radius_m * stretch * np.sin(angle),
        ),
        axis=-1,
    )
