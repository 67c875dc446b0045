"""Buildings beside the street: walls, roofs, rows of windows, shop fronts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import Color, Pair, Rng, across, along, mix, shade

WALLS: tuple[Color, ...] = (
    (142, 84, 66),  # red brick
    (120, 72, 58),
    (186, 164, 126),  # yellow gault brick
    (164, 140, 108),
    (222, 217, 206),  # render
    (198, 196, 190),
    (150, 150, 148),  # concrete
    (110, 100, 90),  # old stone
    (92, 106, 116),  # glass and steel
    (72, 64, 58),
)
ROOFS: tuple[Color, ...] = ((92, 70, 62), (70, 72, 78), (120, 82, 66), (56, 52, 52))
SHOPS: tuple[Color, ...] = (
    (150, 40, 40),
    (30, 70, 50),
    (40, 60, 120),
    (40, 40, 44),
    (200, 170, 60),
    (220, 220, 215),
)
GLASS: tuple[Color, ...] = ((38, 44, 52), (62, 72, 82), (112, 124, 136), (170, 186, 198))
_DETAIL_PX = 2.0  # windows narrower than this are not drawn
_BARS_PX = 8.0  # windows narrower than this have no glazing bars


@dataclass(frozen=True)
class Facade:
    """How one building looks; lengths in metres."""

    wall: Color
    trim: Color
    height: float
    floor: float
    bay: float
    window: Pair  # width, height
    pitched: bool
    shop: bool


def random_facade(rng: Rng) -> Facade:
    """Draw a building's looks."""
    wall = WALLS[rng.integers(len(WALLS))]
    floor = rng.uniform(2.6, 3.6)
    floors = int(rng.choice((1, 2, 3, 4, 6), p=(0.08, 0.34, 0.36, 0.16, 0.06)))
    bay = rng.uniform(1.8, 3.6)
    return Facade(
        wall=shade(wall, rng.uniform(0.75, 1.15)),
        trim=mix(wall, (235, 232, 225), rng.uniform(0.0, 0.9)),
        height=floors * floor + rng.uniform(0.3, 1.2),
        floor=floor,
        bay=bay,
        window=(bay * rng.uniform(0.35, 0.75), floor * rng.uniform(0.4, 0.62)),
        pitched=bool(rng.random() < 0.6),
        shop=bool(rng.random() < 0.4),
    )


def draw_building(canvas: Canvas, rng: Rng, x: float, z: Pair) -> None:
    """Draw a building whose street wall is at x from z[0] to z[1]."""
    facade = random_facade(rng)
    side = 1.0 if x > 0 else -1.0
    back = x + side * rng.uniform(8, 16)
    lit_street, lit_front = canvas.light.on((-side, 0, 0)), canvas.light.on((0, 0, -1))
    if facade.pitched:
        _draw_roof(canvas, rng, facade, (x, back), z)
    walls = (0.0, facade.height)
    canvas.fill(across((x, back), z[0], walls), shade(facade.wall, lit_front), Class.BUILDING)
    _draw_windows(canvas, rng, facade, _front_grid(facade, (x, back), z[0]), lit_front)
    canvas.fill(along(x, z, walls), shade(facade.wall, lit_street), Class.BUILDING)
    _draw_windows(canvas, rng, facade, _street_grid(facade, x, z), lit_street)
    _draw_relief(canvas, rng, facade, x, z, lit_street)
    if facade.shop:
        _draw_shop(canvas, rng, facade, x, z, lit_street)


def _draw_roof(canvas: Canvas, rng: Rng, facade: Facade, x: Pair, z: Pair) -> None:
    low, ridge = facade.height, facade.height + rng.uniform(1.5, 3.5)
    middle = (x[0] + x[1]) / 2
    color = shade(ROOFS[rng.integers(len(ROOFS))], canvas.light.on((0, 1, 0)))
    slope = [[(x[0], low, z[0]), (middle, ridge, z[0]), (middle, ridge, z[1]), (x[0], low, z[1])]]
    gable = [[(x[0], low, z[0]), (middle, ridge, z[0]), (x[1], low, z[0])]]
    canvas.fill(np.array(slope), color, Class.BUILDING)
    canvas.fill(np.array(gable), shade(facade.wall, canvas.light.on((0, 0, -1))), Class.BUILDING)
    chimney_z = rng.uniform(*z)
    stack = (ridge - 0.3, ridge + rng.uniform(0.6, 1.6))
    canvas.fill(across((middle - 0.5, middle + 0.5), chimney_z, stack), facade.wall, Class.BUILDING)


def _draw_relief(canvas: Canvas, rng: Rng, facade: Facade, x: float, z: Pair, lit: float) -> None:
    """Draw what sticks out of the street wall: eaves, courses at the floors, pipes, doors."""
    ledges = [along(x, z, (facade.height - 0.3, facade.height))]
    if rng.random() < 0.5:
        floors = np.arange(facade.floor, facade.height - 0.5, facade.floor)
        ledges += [along(x, z, (y - 0.15, y + 0.05)) for y in floors]
    canvas.fill(np.concatenate(ledges), shade(facade.trim, lit), Class.BUILDING)
    pipes = rng.uniform(*z, int(rng.integers(1, 4)))
    walls = [along(x, (start, start + 0.12), (0.0, facade.height)) for start in pipes]
    canvas.fill(np.concatenate(walls), shade(facade.wall, 0.55 * lit), Class.BUILDING)
    doors = rng.uniform(*z, int(rng.integers(1, 3)))
    panels = [along(x, (start, start + 1.0), (0.0, 2.1)) for start in doors]
    color = shade(SHOPS[rng.integers(len(SHOPS))], 0.8 * lit)
    canvas.fill(np.concatenate(panels), color, Class.BUILDING)


def _street_grid(facade: Facade, x: float, z: Pair) -> Array:
    """Return the windows of the street wall, (P, 4, 3)."""
    start_m = np.arange(z[0] + 0.6, z[1] - facade.window[0], facade.bay)
    return np.insert(_windows(facade, start_m[start_m > 1.5])[..., ::-1], 0, x, axis=-1)


def _front_grid(facade: Facade, x: Pair, z: float) -> Array:
    """Return the windows of the wall that faces the camera, (P, 4, 3)."""
    start_m = np.arange(min(x) + 0.8, max(x) - facade.window[0], facade.bay * 1.3)
    return np.insert(_windows(facade, start_m), 2, z, axis=-1)


def _windows(facade: Facade, start_m: Array) -> Array:
    """Return windows on each floor that begin at these places of a wall, (P, 4, 2)."""
    first = 1 if facade.shop else 0
    floors = round(facade.height // facade.floor)
    sill_m = np.arange(first, floors) * facade.floor + 0.25 * facade.floor
    u0, y0 = (grid.ravel() for grid in np.meshgrid(start_m, sill_m))
    u1, y1 = u0 + facade.window[0], y0 + facade.window[1]
    return np.stack([np.stack(c, -1) for c in ((u0, y0), (u0, y1), (u1, y1), (u1, y0))], axis=1)


def _draw_windows(canvas: Canvas, rng: Rng, facade: Facade, windows_P43: Array, lit: float) -> None:
    """Draw frames, panes in up to three tones and, where they are big enough, glazing bars."""
    if not len(windows_P43):
        return
    depth_m = float(windows_P43[..., 2].mean())
    width_px = facade.window[0] * canvas.camera.pixels_per_m(depth_m)
    if width_px < _DETAIL_PX:
        return
    trim = shade(facade.trim, lit)
    canvas.fill(_grown(windows_P43, 1.12), trim, Class.BUILDING)
    groups = rng.integers(0, 3, len(windows_P43))
    for group in range(3):
        if (groups == group).any():
            color = GLASS[rng.integers(len(GLASS))]
            canvas.fill(windows_P43[groups == group], shade(color, 0.5 + 0.5 * lit), Class.BUILDING)
    if width_px > _BARS_PX and rng.random() < 0.7:
        middles_P43 = (windows_P43 + np.roll(windows_P43, -1, axis=1)) / 2  # of the four edges
        canvas.lines(middles_P43[:, 0::2], trim, 0.06, Class.BUILDING)
        canvas.lines(middles_P43[:, 1::2], trim, 0.06, Class.BUILDING)


def _grown(polygons_PV3: Array, factor: float) -> Array:
    center = polygons_PV3.mean(axis=1, keepdims=True)
    return np.asarray(center + (polygons_PV3 - center) * factor)


def _draw_shop(canvas: Canvas, rng: Rng, facade: Facade, x: float, z: Pair, lit: float) -> None:
    color = shade(SHOPS[rng.integers(len(SHOPS))], lit)
    top = min(facade.floor, facade.height)
    canvas.fill(along(x, z, (0.0, top)), color, Class.BUILDING)
    pane_m = rng.uniform(1.5, 3.5)
    glass = shade(GLASS[rng.integers(len(GLASS))], rng.uniform(0.5, 1.2))
    for start in np.arange(z[0] + 0.3, z[1] - pane_m, pane_m):
        pane = (max(start, 1.0), start + pane_m * 0.88)
        canvas.fill(along(x, pane, (0.4, top * 0.74)), glass, Class.BUILDING)
