"""Cars, vans, buses and lorries: a side profile, extruded over the width.

Local coordinates: z from the rear bumper to the front, y up, x across, in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import Color, Rng, across, disc, flat, shade

PAINTS: tuple[Color, ...] = (
    (190, 192, 196),
    (150, 154, 160),
    (34, 36, 40),
    (60, 64, 72),
    (224, 224, 222),
    (120, 28, 32),
    (34, 52, 100),
    (40, 74, 62),
    (150, 130, 90),
    (70, 96, 130),
)
_GLASS: Color = (40, 46, 54)
_TYRE: Color = (24, 24, 26)


@dataclass(frozen=True)
class Body:
    """A kind of vehicle.

    Attributes:
        share: how much of the traffic it is.
        width: metres.
        profile: (z, y) corners from the rear bumper's foot over the roof to the front's foot.
        glass: which of the strips between those corners are windows.
        side_glass: (z, y) corners of the windows in the side.
        wheels: z of the axles.
    """

    share: float
    width: float
    profile: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    side_glass: tuple[tuple[float, float], ...]
    wheels: tuple[float, ...]
    wheel_radius: float = 0.32


def _corners(text: str) -> tuple[tuple[float, float], ...]:
    """Return "z y, z y, ..." as pairs."""
    pairs = (corner.split() for corner in text.split(","))
    return tuple((float(z), float(y)) for z, y in pairs)


BODIES = (
    Body(  # hatchback
        share=0.46,
        width=1.7,
        profile=_corners("0 .28, 0 .8, .12 .95, .5 1.42, 2.1 1.45, 2.95 .95, 3.85 .78, 3.95 .28"),
        glass=(2, 4),
        side_glass=_corners("0.5 .98, .75 1.35, 2.05 1.37, 2.7 .98"),
        wheels=(0.7, 3.2),
    ),
    Body(  # saloon
        share=0.26,
        width=1.75,
        profile=_corners("0 .28, 0 .92, .7 .98, 1.25 1.4, 2.6 1.42, 3.4 .95, 4.4 .75, 4.5 .28"),
        glass=(2, 4),
        side_glass=_corners("1 .98, 1.35 1.32, 2.55 1.34, 3.1 .98"),
        wheels=(0.85, 3.6),
    ),
    Body(  # van
        share=0.14,
        width=1.95,
        profile=_corners("0 .35, 0 1.1, .05 2.2, 3.6 2.2, 4.3 1.2, 5 1, 5.1 .35"),
        glass=(3,),
        side_glass=_corners("3.1 1.2, 3.1 1.85, 3.7 1.85, 4.1 1.2"),
        wheels=(0.9, 4.1),
    ),
    Body(  # bus
        share=0.07,
        width=2.5,
        profile=_corners("0 .4, 0 1.2, 0 2.4, .1 3, 9.6 3, 9.8 1.1, 9.8 .4"),
        glass=(1, 4),
        side_glass=_corners(".4 1.3, .4 2.5, 9.4 2.5, 9.5 1.3"),
        wheels=(2.4, 7.6),
        wheel_radius=0.48,
    ),
    Body(  # lorry
        share=0.07,
        width=2.4,
        profile=_corners("0 .6, 0 3.3, 5.6 3.3, 5.7 2.6, 6.6 2.5, 7.1 1.4, 7.2 .5"),
        glass=(4,),
        side_glass=_corners("5.9 1.5, 5.9 2.2, 6.5 2.2, 6.7 1.5"),
        wheels=(1.3, 6.0),
        wheel_radius=0.46,
    ),
)


def draw_vehicle(canvas: Canvas, rng: Rng, x: float, z: float, heading: float) -> None:
    """Draw a random vehicle whose middle is at x, its nearest end at z.

    Heading is in radians from driving away: pi comes towards the camera, pi/2 crosses.
    """
    body = BODIES[rng.choice(len(BODIES), p=[body.share for body in BODIES])]
    paint = shade(PAINTS[rng.integers(len(PAINTS))], rng.uniform(0.8, 1.1))
    pose = _Pose(body, x, z, heading, canvas.camera.height_m)
    half, length = body.width / 2 + 0.1, body.profile[-1][0]
    shadow = flat((-half, half), (-0.15, length + 0.15), 0.01)
    canvas.fill(pose.place(shadow), (28, 28, 32), Class.ROAD)
    _draw_strips(canvas, body, pose, paint)
    for side in (-1.0, 1.0):
        _draw_side(canvas, body, pose, side, paint)
    _draw_ends(canvas, rng, body, pose)


class _Pose:
    """Turns and moves a body from its own coordinates into the street."""

    def __init__(self, body: Body, x: float, z: float, heading: float, eye_m: float) -> None:
        sin, cos = math.sin(heading), math.cos(heading)
        middle = body.profile[-1][0] / 2
        reach = abs(cos) * middle + abs(sin) * body.width / 2
        self._turn_33 = np.array([(cos, 0.0, -sin), (0.0, 1.0, 0.0), (sin, 0.0, cos)])
        self._shift_3 = (x, 0.0, z + reach) - np.array((0.0, 0.0, middle)) @ self._turn_33
        self._eye_3 = np.array((0.0, eye_m, 0.0))

    def turn(self, normals: Array) -> Array:
        return np.asarray(normals @ self._turn_33)

    def place(self, local: Array) -> Array:
        return np.asarray(local @ self._turn_33 + self._shift_3)

    def sees(self, local_P3: Array, normals_P3: Array) -> Array:
        """Return which surfaces, each given by a point and its normal, face the camera."""
        towards_P3 = self._eye_3 - self.place(local_P3)
        return np.asarray((towards_P3 * self.turn(normals_P3)).sum(axis=-1) > 0)


def _draw_strips(canvas: Canvas, body: Body, pose: _Pose, paint: Color) -> None:
    """Draw tail, roof, windscreen and so on, far ones first."""
    corners_P43, normals_P3 = _strips(body)
    visible_P = pose.sees(corners_P43[:, 0], normals_P3)
    placed_P43, turned_P3 = pose.place(corners_P43), pose.turn(normals_P3)
    for index in np.argsort(-placed_P43[..., 2].mean(axis=1)):
        if visible_P[index]:
            color = _GLASS if index in body.glass else paint
            lit = _lit(canvas, turned_P3[index])
            canvas.fill(placed_P43[index][None], shade(color, lit), Class.CAR)


def _lit(canvas: Canvas, normal_3: Array) -> float:
    x, y, z = normal_3.tolist()
    return 0.35 + 0.75 * canvas.light.on((x, y, z))


@lru_cache
def _strips(body: Body) -> tuple[Array, Array]:
    """Return the strips over a vehicle's width, (P, 4, 3), and their outward normals, (P, 3)."""
    half = body.width / 2
    corners, normals = [], []
    for (z0, y0), (z1, y1) in pairwise(body.profile):
        corners.append([(-half, y0, z0), (half, y0, z0), (half, y1, z1), (-half, y1, z1)])
        length = math.hypot(z1 - z0, y1 - y0)
        normals.append((0.0, (z1 - z0) / length, -(y1 - y0) / length))
    return np.array(corners), np.array(normals)


def _draw_side(canvas: Canvas, body: Body, pose: _Pose, side: float, paint: Color) -> None:
    x = side * body.width / 2
    panel = _in_plane(body.profile, x)
    normal_3 = np.array((side, 0.0, 0.0))
    if not pose.sees(panel[0, 0], normal_3):
        return
    lit = _lit(canvas, pose.turn(normal_3))
    canvas.fill(pose.place(panel), shade(paint, lit), Class.CAR)
    canvas.fill(pose.place(_in_plane(body.side_glass, x)), shade(_GLASS, lit), Class.CAR)
    for axle in body.wheels:
        wheel = disc((axle, body.wheel_radius), body.wheel_radius)
        canvas.fill(pose.place(_in_plane(wheel, x)), _TYRE, Class.CAR)
        hub = disc((axle, body.wheel_radius), body.wheel_radius * 0.55)
        canvas.fill(pose.place(_in_plane(hub, x)), shade((150, 150, 152), lit), Class.CAR)


def _draw_ends(canvas: Canvas, rng: Rng, body: Body, pose: _Pose) -> None:
    """Draw lights and number plate on the end that the camera sees."""
    front_z = body.profile[-1][0]
    ends: tuple[tuple[float, float, Color, Color], ...] = (
        (-0.01, -1.0, (170, 30, 26), (206, 178, 60)),
        (front_z + 0.01, 1.0, (228, 228, 214), (220, 220, 215)),
    )
    half, top = body.width / 2, body.profile[1][1]
    low = body.profile[0][1] + 0.12
    for z, direction, lamp, plate in ends:
        plate_143 = across((-0.26, 0.26), z, (low, low + 0.14))
        if not pose.sees(plate_143[0, 0], np.array((0.0, 0.0, direction))):
            continue
        lamp_y = (min(top, 0.9) - 0.24, min(top, 0.9) - 0.04)
        for side in (-1, 1):
            lamp_x = (side * half * 0.68, side * half * 0.97)
            color = shade(lamp, rng.uniform(0.7, 1.3))
            canvas.fill(pose.place(across(lamp_x, z, lamp_y)), color, Class.CAR)
        canvas.fill(pose.place(plate_143), plate, Class.CAR)


def _in_plane(corners: Array | tuple[tuple[float, float], ...], x: float) -> Array:
    """Return (z, y) corners as a polygon of a side wall, (1, V, 3)."""
    points = np.asarray(corners, np.float64)
    return np.stack((np.full(len(points), x), points[:, 1], points[:, 0]), axis=-1)[None]
