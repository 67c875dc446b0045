"""Pedestrians and bicyclists: flat figures that face the camera."""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import Color, Point, Rng, disc, flat, outline, shade

CLOTHES: tuple[Color, ...] = (
    (30, 30, 36),
    (52, 56, 70),
    (90, 84, 80),
    (128, 36, 40),
    (44, 62, 110),
    (170, 160, 140),
    (60, 84, 60),
    (200, 196, 190),
    (196, 170, 60),
)
SKIN: tuple[Color, ...] = ((206, 164, 138), (168, 122, 96), (100, 72, 58))
HAIR: tuple[Color, ...] = ((40, 32, 28), (92, 68, 44), (150, 130, 100))
_WHEEL_M = 0.34


def draw_pedestrian(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a person on foot."""
    tall = rng.uniform(1.5, 1.9) * (0.65 if rng.random() < 0.12 else 1.0)  # some are children
    coat, trousers = _clothes(canvas, rng), _clothes(canvas, rng)
    step, swing = rng.uniform(-0.28, 0.28), rng.uniform(-0.15, 0.15)
    _shadow(canvas, x, z, 0.3)
    for foot in (step, -step):
        leg = np.array([(-0.08, 0.5), (foot - 0.07, 0.0), (foot + 0.1, 0.0), (0.1, 0.5)]) * tall
        canvas.fill(outline(leg, x, z), trousers, Class.PEDESTRIAN)
    for side in (-1, 1):
        arm = [
            (side * 0.1, 0.82),
            (side * 0.17, 0.8),
            (side * (0.17 + swing), 0.48),
            (side * 0.1, 0.5),
        ]
        canvas.fill(outline(np.array(arm) * tall, x, z), shade(coat, 0.85), Class.PEDESTRIAN)
    hem = rng.uniform(0.32, 0.5)
    torso = [(-0.13, 0.82), (0.0, 0.86), (0.13, 0.82), (0.12, hem), (-0.12, hem)]
    canvas.fill(outline(np.array(torso) * tall, x, z), coat, Class.PEDESTRIAN)
    _head(canvas, rng, (x, 0.93 * tall, z), 0.068 * tall, Class.PEDESTRIAN)
    if rng.random() < 0.3:
        bag = np.array([(0.1, 0.55), (0.22, 0.55), (0.22, 0.36), (0.1, 0.36)]) * tall
        canvas.fill(outline(bag, x, z), _clothes(canvas, rng), Class.PEDESTRIAN)


def draw_bicyclist(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a person on a bicycle, seen from behind, the front or the side."""
    _shadow(canvas, x, z, 0.4)
    if rng.random() < 0.5:
        _draw_from_side(canvas, rng, x, z)
    else:
        _draw_from_end(canvas, rng, x, z)


def _draw_from_end(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    coat, trousers = _clothes(canvas, rng), _clothes(canvas, rng)
    tyre = np.array([(-0.05, 0.0), (-0.05, 0.75), (0.05, 0.75), (0.05, 0.0)])
    canvas.fill(outline(tyre, x, z), (28, 28, 30), Class.BICYCLIST)
    pedal = rng.uniform(0.15, 0.4)
    for side, foot in ((-1, pedal), (1, 0.55 - pedal)):
        leg = [(side * 0.05, 1.0), (side * 0.22, 0.95), (side * 0.2, foot), (side * 0.08, foot)]
        canvas.fill(outline(np.array(leg), x, z), trousers, Class.BICYCLIST)
    bar = [(-0.3, 1.0), (0.3, 1.0), (0.3, 1.05), (-0.3, 1.05)]
    torso = [
        (-0.2, 1.45),
        (0.0, 1.52),
        (0.2, 1.45),
        (0.27, 1.05),
        (0.17, 0.88),
        (-0.17, 0.88),
        (-0.27, 1.05),
    ]
    canvas.fill(outline(np.array(bar), x, z), (40, 40, 44), Class.BICYCLIST)
    canvas.fill(outline(np.array(torso), x, z), coat, Class.BICYCLIST)
    _head(canvas, rng, (x, 1.62, z), 0.12, Class.BICYCLIST)


def _draw_from_side(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    way = 1.0 if rng.random() < 0.5 else -1.0
    coat, trousers = _clothes(canvas, rng), _clothes(canvas, rng)
    frame = CLOTHES[rng.integers(len(CLOTHES))]
    for hub in (-0.52, 0.52):
        rim = outline(disc((hub, _WHEEL_M), _WHEEL_M), x, z)
        canvas.mark(rim, Class.BICYCLIST)
        closed = np.concatenate((rim, rim[:, :1]), axis=1)
        canvas.lines(closed, (30, 30, 32), 0.05, Class.BICYCLIST)
    tubes = [(-0.52, 0.34), (-0.15, 0.85), (0.45, 0.85), (0.0, 0.34), (-0.15, 0.85), (0.52, 0.34)]
    path = outline(np.array(tubes) * (way, 1.0), x, z)
    canvas.lines(path, frame, 0.05, Class.BICYCLIST)
    leg = [(-0.22, 0.95), (0.0, 0.98), (0.22, 0.68), (0.08, 0.22), (-0.04, 0.26), (0.05, 0.66)]
    torso = [(-0.28, 0.92), (0.0, 0.9), (0.28, 1.32), (0.2, 1.48), (0.05, 1.46)]
    arm = [(0.16, 1.4), (0.28, 1.34), (0.5, 0.98), (0.42, 0.94)]
    for figure, color in ((leg, trousers), (torso, coat), (arm, shade(coat, 0.85))):
        canvas.fill(outline(np.array(figure) * (way, 1.0), x, z), color, Class.BICYCLIST)
    _head(canvas, rng, (x + way * 0.24, 1.6, z), 0.12, Class.BICYCLIST)


def _head(canvas: Canvas, rng: Rng, at: Point, radius_m: float, class_id: Class) -> None:
    x, y, z = at
    face: Array = disc((0.0, y), radius_m, 1.25)
    canvas.fill(outline(face, x, z), SKIN[rng.integers(len(SKIN))], class_id)
    hair = face[: len(face) // 2 + 1]  # the upper half
    canvas.fill(outline(hair, x, z), HAIR[rng.integers(len(HAIR))], class_id)


def _clothes(canvas: Canvas, rng: Rng) -> Color:
    lit = 0.4 + 0.7 * canvas.light.on((0, 0, -1))
    return shade(CLOTHES[rng.integers(len(CLOTHES))], lit * rng.uniform(0.8, 1.2))


def _shadow(canvas: Canvas, x: float, z: float, radius_m: float) -> None:
    canvas.fill(
        flat((x - radius_m, x + radius_m), (z - 0.15, z + 0.3), 0.01), (46, 46, 50), Class.ROAD
    )
