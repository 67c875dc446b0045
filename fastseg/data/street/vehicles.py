"""Cars, vans, buses and lorries: a side profile, extruded over the width.

Local coordinates: z from the rear bumper to the front, y up, x across, in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.street.canvas import Canvas, Class, Color, shade
from fastseg.data.street.shapes import disc, flat

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
Point = tuple[float, float, float]
_TYRE: Color = (24, 24, 26)


@dataclass(frozen=True)
class Body:
    """A kind of vehicle.

    Attributes:
        width: metres.
        profile: (z, y) corners from the rear bumper's foot over the roof to the front's foot.
        glass: which of the strips between those corners are windows.
        side_glass: (z, y) corners of the windows in the side.
        wheels: z of the axles.
    """

    width: float
    profile: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    side_glass: tuple[tuple[float, float], ...]
    wheels: tuple[float, ...]
    wheel_radius: float = 0.32


BODIES = {
    "hatchback": Body(
        1.7,
        (
            (0, 0.28),
            (0, 0.8),
            (0.12, 0.95),
            (0.5, 1.42),
            (2.1, 1.45),
            (2.95, 0.95),
            (3.85, 0.78),
            (3.95, 0.28),
        ),
        (2, 4),
        ((0.5, 0.98), (0.75, 1.35), (2.05, 1.37), (2.7, 0.98)),
        (0.7, 3.2),
    ),
    "saloon": Body(
        1.75,
        (
            (0, 0.28),
            (0, 0.92),
            (0.7, 0.98),
            (1.25, 1.4),
            (2.6, 1.42),
            (3.4, 0.95),
            (4.4, 0.75),
            (4.5, 0.28),
        ),
        (2, 4),
        ((1.0, 0.98), (1.35, 1.32), (2.55, 1.34), (3.1, 0.98)),
        (0.85, 3.6),
    ),
    "van": Body(
        1.95,
        ((0, 0.35), (0, 1.1), (0.05, 2.2), (3.6, 2.2), (4.3, 1.2), (5.0, 1.0), (5.1, 0.35)),
        (3,),
        ((3.1, 1.2), (3.1, 1.85), (3.7, 1.85), (4.1, 1.2)),
        (0.9, 4.1),
    ),
    "bus": Body(
        2.5,
        ((0, 0.4), (0, 1.2), (0, 2.4), (0.1, 3.0), (9.6, 3.0), (9.8, 1.1), (9.8, 0.4)),
        (1, 4),
        ((0.4, 1.3), (0.4, 2.5), (9.4, 2.5), (9.5, 1.3)),
        (2.4, 7.6),
        0.48,
    ),
    "lorry": Body(
        2.4,
        ((0, 0.6), (0, 3.3), (5.6, 3.3), (5.7, 2.6), (6.6, 2.5), (7.1, 1.4), (7.2, 0.5)),
        (4,),
        ((5.9, 1.5), (5.9, 2.2), (6.5, 2.2), (6.7, 1.5)),
        (1.3, 6.0),
        0.46,
    ),
}
_SHARES = (0.46, 0.26, 0.14, 0.07, 0.07)


def draw_vehicle(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float
) -> None:
    """Draw a random vehicle.

    Args:
        canvas: what to draw on.
        rng: looks.
        x: middle of the vehicle.
        z: its nearest end.
        heading: radians from driving away; pi comes towards the camera, pi/2 crosses.
    """
    body = BODIES[str(rng.choice(list(BODIES), p=_SHARES))]
    paint = shade(PAINTS[rng.integers(len(PAINTS))], rng.uniform(0.8, 1.1))
    pose = _Pose(body, x, z, heading)
    shadow = flat(
        (-body.width / 2 - 0.1, body.width / 2 + 0.1), (-0.15, body.profile[-1][0] + 0.15), 0.01
    )
    canvas.fill(pose.place(shadow), (28, 28, 32), Class.ROAD)
    for quad_143, color, normal in sorted(_strips(body, paint), key=lambda s: -pose.depth(s[0])):
        if pose.faces_camera(quad_143, normal, canvas.camera.height_m):
            canvas.fill(
                pose.place(quad_143), shade(color, _lit(canvas, pose.turn(normal))), Class.CAR
            )
    for side in (-1.0, 1.0):
        _draw_side(canvas, body, pose, side, paint)
    _draw_ends(canvas, rng, body, pose)


class _Pose:
    """Turns and moves a body from its own coordinates into the street."""

    def __init__(self, body: Body, x: float, z: float, heading: float) -> None:
        sin, cos = math.sin(heading), math.cos(heading)
        middle = body.profile[-1][0] / 2
        reach = abs(cos) * middle + abs(sin) * body.width / 2
        self._turn_33 = np.array([(cos, 0.0, -sin), (0.0, 1.0, 0.0), (sin, 0.0, cos)])
        self._shift_3 = (x, 0.0, z + reach) - np.array((0.0, 0.0, middle)) @ self._turn_33

    def turn(self, normal: Point) -> Point:
        x, y, z = (normal @ self._turn_33).tolist()
        return (x, y, z)

    def place(self, local_PV3: Array) -> Array:
        return np.asarray(local_PV3 @ self._turn_33 + self._shift_3)

    def depth(self, local_PV3: Array) -> float:
        return float(self.place(local_PV3[0].mean(axis=0))[2])

    def faces_camera(self, local_PV3: Array, normal: Point, eye_m: float) -> bool:
        x, y, z = self.place(local_PV3[0, 0]).tolist()
        across, up, ahead = self.turn(normal)
        return bool(-x * across + (eye_m - y) * up - z * ahead > 0)


def _lit(canvas: Canvas, normal: Point) -> float:
    return 0.35 + 0.75 * canvas.light.on(normal)


def _strips(body: Body, paint: Color) -> list[tuple[Array, Color, Point]]:
    """Return quad, colour and outward normal of each strip over the vehicle's width."""
    strips = []
    half = body.width / 2
    for index, ((z0, y0), (z1, y1)) in enumerate(zip(body.profile, body.profile[1:], strict=False)):
        quad_143 = np.array([[(-half, y0, z0), (half, y0, z0), (half, y1, z1), (-half, y1, z1)]])
        length = float(np.hypot(z1 - z0, y1 - y0))
        normal = (0.0, (z1 - z0) / length, -(y1 - y0) / length)
        strips.append((quad_143, _GLASS if index in body.glass else paint, normal))
    return strips


def _draw_side(canvas: Canvas, body: Body, pose: _Pose, side: float, paint: Color) -> None:
    x = side * body.width / 2
    panel = _in_plane(body.profile, x)
    if not pose.faces_camera(panel, (side, 0, 0), canvas.camera.height_m):
        return
    lit = _lit(canvas, pose.turn((side, 0, 0)))
    canvas.fill(pose.place(panel), shade(paint, lit), Class.CAR)
    canvas.fill(pose.place(_in_plane(body.side_glass, x)), shade(_GLASS, lit), Class.CAR)
    for axle in body.wheels:
        wheel = disc((axle, body.wheel_radius), body.wheel_radius)
        canvas.fill(pose.place(_in_plane(wheel, x)), _TYRE, Class.CAR)
        hub = disc((axle, body.wheel_radius), body.wheel_radius * 0.55)
        canvas.fill(pose.place(_in_plane(hub, x)), shade((150, 150, 152), lit), Class.CAR)


def _draw_ends(canvas: Canvas, rng: np.random.Generator, body: Body, pose: _Pose) -> None:
    """Draw lights and number plate on the end that the camera sees."""
    front_z = body.profile[-1][0]
    ends: tuple[tuple[float, float, Color, Color], ...] = (
        (-0.01, -1.0, (170, 30, 26), (206, 178, 60)),
        (front_z + 0.01, 1.0, (228, 228, 214), (220, 220, 215)),
    )
    half, top = body.width / 2, body.profile[1][1]
    low = body.profile[0][1] + 0.12
    for z, direction, lamp, plate in ends:
        plate_143 = _end_quad((-0.26, 0.26), (low, low + 0.14), z)
        if not pose.faces_camera(plate_143, (0, 0, direction), canvas.camera.height_m):
            continue
        lamp_y = (min(top, 0.9) - 0.24, min(top, 0.9) - 0.04)
        for side in (-1, 1):
            lamp_x = (side * half * 0.68, side * half * 0.97)
            canvas.fill(
                pose.place(_end_quad(lamp_x, lamp_y, z)),
                shade(lamp, rng.uniform(0.7, 1.3)),
                Class.CAR,
            )
        canvas.fill(pose.place(plate_143), plate, Class.CAR)


def _in_plane(corners: Array | tuple[tuple[float, float], ...], x: float) -> Array:
    """Return (z, y) corners as a polygon of a side wall, (1, V, 3)."""
    points = np.asarray(corners, np.float64)
    return np.stack((np.full(len(points), x), points[:, 1], points[:, 0]), axis=-1)[None]


def _end_quad(x: tuple[float, float], y: tuple[float, float], z: float) -> Array:
    return np.array([[(x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z), (x[1], y[0], z)]])
