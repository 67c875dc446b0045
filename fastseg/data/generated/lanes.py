"""Generated roads whose thin lane lines are the only class: how well does a network keep detail?"""

from __future__ import annotations

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.dataset import Array
from fastseg.data.generated.procedural import ProceduralDataset, open_procedural
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.scene import (
    draw_backdrop,
    draw_sky,
    photograph,
    random_camera,
    random_light,
)
from fastseg.data.generated.street.shapes import Color, Rng, flat, shade, strip
from fastseg.data.generated.street.vehicles import draw_vehicle

CLASSES = (ClassInfo("Background", (0, 0, 0)), ClassInfo("LaneLine", (255, 210, 0)))

_LINE = len(Class)  # beside the street's own classes while drawing
_LAND: tuple[Color, ...] = ((92, 104, 58), (140, 126, 96), (120, 118, 112))
_PAINT: tuple[Color, ...] = ((216, 216, 208), (206, 172, 60))


def open_lanes(location: str, split: str) -> ProceduralDataset:
    """Open roads with lane lines; location holds options as for "synthetic"."""
    return open_procedural("synthetic-lanes", location, split, CLASSES, draw_lanes)


def draw_lanes(rng: Rng, width: int, height: int) -> tuple[Array, Array]:
    """Draw a road of one to four lanes with traffic.

    Returns:
        image (height, width, 3) uint8 RGB and class ids (height, width) uint8.
    """
    canvas = Canvas(width, height, random_camera(rng, width, height), random_light(rng))
    draw_sky(canvas, rng)
    draw_backdrop(canvas, rng)
    lane_m, lanes = rng.uniform(2.8, 3.8), int(rng.integers(1, 5))
    left = -lane_m * (rng.integers(lanes) + rng.uniform(0.35, 0.65))
    z_N = np.geomspace(1.0, 160.0, 24)
    canvas.fill(strip((-90.0, 90.0), z_N), _LAND[rng.integers(len(_LAND))], Class.TREE)
    asphalt = shade((92, 93, 96), rng.uniform(0.5, 1.3))
    canvas.fill(strip((left - 1.0, left + lanes * lane_m + 1.0), z_N), asphalt, Class.ROAD)
    for line in range(lanes + 1):
        dashed = 0 < line < lanes and rng.random() < 0.8
        _draw_line(canvas, rng, left + line * lane_m, dashed)
    for depth in sorted(rng.uniform(8, 60, rng.integers(0, 5)), reverse=True):
        middle = left + (rng.integers(lanes) + 0.5) * lane_m
        draw_vehicle(canvas, rng, float(middle), float(depth), float(rng.normal(0, 0.03)))
    canvas.flush()
    label_HW = cv2.extractChannel(canvas.pixels_HW4, 3)
    image_HW3 = cv2.cvtColor(canvas.pixels_HW4, cv2.COLOR_RGBA2RGB)
    return photograph(rng, image_HW3, label_HW), (label_HW == _LINE).astype(np.uint8)


def _draw_line(canvas: Canvas, rng: Rng, x: float, dashed: bool) -> None:
    """Draw one line along the road, whole or in dashes of uneven wear."""
    x_span = (x, x + rng.uniform(0.1, 0.2))
    paint = shade(_PAINT[int(rng.random() < 0.2)], rng.uniform(0.6, 1.1))
    if not dashed:
        canvas.fill(strip(x_span, np.geomspace(1.0, 120.0, 24)), paint, _LINE)
        return
    dash, gap = rng.uniform(1.5, 5.0), rng.uniform(2.0, 8.0)
    for start in np.arange(rng.uniform(0.5, 4.0), 90, dash + gap):
        piece = flat(x_span, (float(start), float(start) + dash))
        canvas.fill(piece, shade(paint, rng.uniform(0.8, 1.1)), _LINE)
