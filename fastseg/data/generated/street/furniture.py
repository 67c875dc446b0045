"""Things that stand on the pavement: lamp posts, signs, traffic lights, bollards, fences, walls."""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import (
    Color,
    Pair,
    Rng,
    across,
    along,
    disc,
    outline,
    shade,
)

METALS: tuple[Color, ...] = ((96, 98, 100), (60, 62, 64), (44, 46, 50), (150, 152, 150))
PLATES: tuple[Color, ...] = (
    (190, 34, 40),
    (36, 70, 150),
    (225, 225, 220),
    (210, 170, 40),
    (40, 100, 70),
)
BOLLARDS: tuple[Color, ...] = ((40, 42, 44), (216, 176, 40), (210, 208, 200), (110, 108, 104))
PANELS: tuple[Color, ...] = ((112, 86, 62), (96, 92, 84), (70, 84, 66), (140, 128, 108))


def draw_lamp_post(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a lamp post with an arm over the road."""
    color, height = METALS[rng.integers(len(METALS))], rng.uniform(5.0, 9.5)
    radius = rng.uniform(0.06, 0.11)
    _draw_post(canvas, x, z, height, radius, color)
    arm_m = -np.sign(x) * rng.uniform(0.5, 1.8)
    arm = across((x, x + arm_m), z, (height - 0.1, height + 0.06))
    canvas.fill(arm, color, Class.POLE)
    lamp = across((x + arm_m * 0.6, x + arm_m * 1.2), z, (height - 0.12, height + 0.12))
    canvas.fill(lamp, shade(color, 1.3), Class.POLE)


def draw_sign(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw one to three plates on a post."""
    height = rng.uniform(2.2, 3.2)
    _draw_post(canvas, x, z, height, 0.045, METALS[rng.integers(len(METALS))])
    top = height
    for _ in range(int(rng.choice((1, 2, 3), p=(0.7, 0.22, 0.08)))):
        size = rng.uniform(0.24, 0.45)
        _draw_plate(canvas, rng, (x, top - size), size, z)
        top -= 2 * size + 0.05


def draw_board(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a big sign or a notice board on two posts."""
    width, height = rng.uniform(0.6, 1.8), rng.uniform(0.6, 1.6)
    foot = rng.uniform(0.4, 2.2)
    for side in (-0.4, 0.4):
        _draw_post(canvas, x + side * width, z, foot, 0.04, METALS[0])
    color = PLATES[rng.integers(len(PLATES))]
    face = across((x - width / 2, x + width / 2), z, (foot, foot + height))
    canvas.fill(face, _front(canvas, color), Class.SIGN)
    ink = (235, 235, 230) if sum(color) < 400 else (40, 40, 60)
    for line in range(int(rng.integers(1, 4))):
        y = foot + height * (0.72 - 0.22 * line)
        text = across(
            (x - width * 0.38, x + width * rng.uniform(0.0, 0.38)), z, (y, y + 0.1 * height)
        )
        canvas.fill(text, _front(canvas, ink), Class.SIGN)


def draw_traffic_light(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a traffic light; the box is a sign, the post a pole."""
    height = rng.uniform(2.9, 3.6)
    _draw_post(canvas, x, z, height, 0.06, (60, 60, 62))
    board = across((x - 0.24, x + 0.24), z, (height - 1.15, height + 0.1))
    canvas.fill(board, (26, 26, 28), Class.SIGN)
    lamps: tuple[Color, ...] = ((230, 40, 30), (240, 170, 40), (60, 220, 140))
    on = int(rng.integers(3))
    for index, lamp in enumerate(lamps):
        spot = outline(disc((0.0, height - 0.15 - 0.37 * index), 0.12), x, z)
        canvas.fill(spot, lamp if index == on else shade(lamp, 0.2), Class.SIGN)


def draw_bollard(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a bollard of about a metre."""
    color = BOLLARDS[rng.integers(len(BOLLARDS))]
    _draw_post(canvas, x, z, rng.uniform(0.8, 1.3), rng.uniform(0.06, 0.16), color)


def draw_railing(canvas: Canvas, rng: Rng, x: float, z: Pair) -> None:
    """Draw a see-through railing along the kerb; all of it is fence."""
    height, color = rng.uniform(0.9, 1.3), METALS[rng.integers(len(METALS))]
    canvas.mark(along(x, z, (0.0, height)), Class.FENCE)
    for y in (0.12, height):
        canvas.fill(along(x, z, (y - 0.05, y)), color, Class.FENCE)
    bars = np.arange(z[0], z[1], rng.uniform(0.12, 0.3) * max(1.0, z[0] / 12))
    foot_N3 = np.stack((np.full_like(bars, x), np.zeros_like(bars), bars), axis=-1)
    path_N23 = np.stack((foot_N3, foot_N3 + np.array((0.0, height, 0.0))), axis=1)
    canvas.lines(path_N23, color, 0.03, Class.FENCE)


def draw_panel_fence(canvas: Canvas, rng: Rng, x: float, z: Pair) -> None:
    """Draw a closed fence of boards."""
    height, side = rng.uniform(1.2, 2.1), 1.0 if x > 0 else -1.0
    color = shade(PANELS[rng.integers(len(PANELS))], canvas.light.on((-side, 0, 0)))
    canvas.fill(along(x, z, (0.0, height)), color, Class.FENCE)
    board_m = rng.uniform(0.6, 2.0)
    for start in np.arange(z[0], z[1] - 0.1, board_m):
        gap = (max(start, 0.8), start + 0.08)
        canvas.fill(along(x, gap, (0.0, height)), shade(color, 0.6), Class.FENCE)


def draw_wall(canvas: Canvas, rng: Rng, x: float, z: Pair) -> None:
    """Draw a garden wall, which CamVid's 11 classes count as Building."""
    height, side = rng.uniform(0.7, 2.4), 1.0 if x > 0 else -1.0
    color: Color = (138, 96, 78) if rng.random() < 0.6 else (150, 146, 136)
    thick = (x, x + side * 0.4)
    canvas.fill(across(thick, z[0], (0.0, height)), _front(canvas, color), Class.BUILDING)
    lit = shade(color, canvas.light.on((-side, 0, 0)))
    canvas.fill(along(x, z, (0.0, height)), lit, Class.BUILDING)
    canvas.fill(along(x, z, (height - 0.12, height)), shade(lit, 1.2), Class.BUILDING)


def _draw_post(
    canvas: Canvas, x: float, z: float, height: float, radius: float, color: Color
) -> None:
    half = max(radius, 0.6 / canvas.camera.pixels_per_m(z))  # never thinner than a pixel
    canvas.fill(across((x - half, x + half), z, (0.0, height)), _front(canvas, color), Class.POLE)
    if radius * canvas.camera.pixels_per_m(z) > 1.5:
        bright = across((x - half, x - half * 0.2), z, (0.0, height))
        canvas.fill(bright, shade(color, 1.35), Class.POLE)


def _draw_plate(canvas: Canvas, rng: Rng, center: Pair, size: float, z: float) -> None:
    figures: tuple[Array, ...] = (
        disc((0.0, 0.0), 1.0),
        np.array([(-1.0, -0.8), (0.0, 1.0), (1.0, -0.8)]),
        np.array([(-0.8, -1.0), (-0.8, 1.0), (0.8, 1.0), (0.8, -1.0)]),
    )
    figure = figures[rng.integers(len(figures))] * size + (0.0, center[1])
    color = PLATES[rng.integers(len(PLATES))]
    canvas.fill(outline(figure, center[0], z), _front(canvas, color), Class.SIGN)
    if rng.random() < 0.6:
        inner = (figure - (0.0, center[1])) * 0.68 + (0.0, center[1])
        canvas.fill(outline(inner, center[0], z), _front(canvas, (232, 230, 224)), Class.SIGN)


def _front(canvas: Canvas, color: Color) -> Color:
    return shade(color, 0.4 + 0.7 * canvas.light.on((0, 0, -1)))
