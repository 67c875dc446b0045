"""The ground: road with markings, kerbs, pavements, verges, side roads, shadows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.noise import noise_window
from fastseg.data.generated.street.canvas import Canvas, Class
from fastseg.data.generated.street.shapes import Color, Pair, Rng, flat, shade, strip

KERB_M = 0.12
_FAR_M = 160.0
_PAINT: Color = (214, 214, 206)
_YELLOW: Color = (196, 168, 72)


@dataclass(frozen=True)
class Street:
    """The plan of a street; x in metres from the camera, negative to the left.

    Attributes:
        road: x of the left and the right kerb.
        pavement: width of the left and the right pavement.
        verge: whether grass lies beyond the left and the right pavement.
        side_road: z of a road that leaves, and to which side (-1, 1), or None.
    """

    road: Pair
    pavement: Pair
    verge: tuple[bool, bool]
    side_road: tuple[float, float, int] | None

    def kerb(self, side: int) -> float:
        """Return x of the kerb on a side."""
        return self.road[0] if side < 0 else self.road[1]

    def plot_edge(self, side: int) -> float:
        """Return x where the pavement ends and plots begin."""
        return self.kerb(side) + side * self.pavement[0 if side < 0 else 1]


def random_street(rng: Rng) -> Street:
    """Draw a plan: the camera drives in one of the lanes, on the left or on the right."""
    lane, lanes_beside = rng.uniform(2.7, 4.0), int(rng.choice((0, 1, 2), p=(0.15, 0.65, 0.2)))
    near, far = lane * rng.uniform(0.45, 1.2), lane * (0.5 + lanes_beside)
    road = (-near, far) if rng.random() < 0.6 else (-far, near)
    pavement = (rng.uniform(1.2, 5.0), rng.uniform(1.2, 5.0))
    side_road = None
    if rng.random() < 0.45:
        start = rng.uniform(4, 35)
        side_road = (start, start + rng.uniform(5, 14), int(rng.choice((-1, 1))))
    return Street(road, pavement, (rng.random() < 0.3, rng.random() < 0.3), side_road)


def draw_ground(canvas: Canvas, rng: Rng, street: Street) -> None:
    """Draw everything flat, from the camera's feet to the far end."""
    z_N = np.geomspace(1.0, _FAR_M, 20)
    stone = shade((128, 126, 122), rng.uniform(0.7, 1.3))
    asphalt = shade((92, 93, 96), rng.uniform(0.55, 1.25))
    canvas.fill(strip((-90.0, 90.0), z_N), asphalt, Class.ROAD)
    for side in (-1, 1):
        grassy = street.verge[0 if side < 0 else 1]
        land: Color = shade((92, 104, 58), rng.uniform(0.6, 1.1)) if grassy else shade(stone, 0.92)
        outer = _ordered(street.plot_edge(side), side * 90.0)
        canvas.fill(strip(outer, z_N, KERB_M), land, Class.TREE if grassy else Class.PAVEMENT)
        walk = _ordered(street.kerb(side), street.plot_edge(side))
        canvas.fill(strip(walk, z_N, KERB_M), stone, Class.PAVEMENT)
        for z in np.arange(2.0, 16.0, rng.uniform(0.7, 1.6)):  # joints
            canvas.fill(flat(walk, (z, z + 0.03), KERB_M), shade(stone, 0.86), Class.PAVEMENT)
        edge = _ordered(street.kerb(side), street.kerb(side) + side * 0.15)
        canvas.fill(strip(edge, z_N, KERB_M), shade(stone, 1.2), Class.PAVEMENT)
    canvas.fill(strip(street.road, z_N), asphalt, Class.ROAD)
    if street.side_road:
        start, end, side = street.side_road
        opening = _ordered(street.kerb(side) - side * 0.2, side * 90.0)
        canvas.fill(flat(opening, (start, end)), asphalt, Class.ROAD)
    _draw_wear(canvas, rng, street, asphalt)
    _draw_markings(canvas, rng, street, z_N)
    _draw_shadows(canvas, rng, street)


def _ordered(a: float, b: float) -> Pair:
    return (min(a, b), max(a, b))


def _draw_wear(canvas: Canvas, rng: Rng, street: Street, asphalt: Color) -> None:
    """Draw patches, seams and manholes on the road."""
    for _ in range(int(rng.integers(0, 5))):
        x, z = rng.uniform(*street.road), rng.uniform(2, 40)
        patch = flat((x, x + rng.uniform(0.5, 3.0)), (z, z + rng.uniform(0.5, 8.0)))
        patch[..., 0] = np.clip(patch[..., 0], *street.road)
        canvas.fill(patch, shade(asphalt, rng.uniform(0.82, 1.14)), Class.ROAD)
    for _ in range(int(rng.integers(0, 3))):
        x = rng.uniform(*street.road)
        seam = strip((x, x + 0.06), np.geomspace(1.5, 60, 12))
        canvas.fill(seam, shade(asphalt, rng.uniform(0.7, 0.9)), Class.ROAD)


def _draw_markings(canvas: Canvas, rng: Rng, street: Street, z_N: Array) -> None:
    """Draw paint on the road; it is road."""
    paint = shade(_PAINT, rng.uniform(0.55, 1.1))
    if rng.random() < 0.75:
        middle = street.road[0] + (street.road[1] - street.road[0]) * rng.uniform(0.4, 0.6)
        dash, gap, width = rng.uniform(1.5, 4), rng.uniform(1.5, 6), rng.uniform(0.1, 0.16)
        start_m = np.arange(rng.uniform(1, 4), 70, dash + gap)
        dashes = [flat((middle, middle + width), (z, z + dash)) for z in start_m]
        canvas.fill(np.concatenate(dashes), paint, Class.ROAD)
    edge = (_YELLOW, paint)[int(rng.random() < 0.4)]
    for side in (-1, 1):
        for inset in (0.3, 0.5)[: int(rng.choice((0, 1, 2), p=(0.35, 0.3, 0.35)))]:
            x = street.kerb(side) - side * inset
            canvas.fill(strip((x, x + 0.09), z_N), edge, Class.ROAD)
    if rng.random() < 0.25:
        _draw_zebra(canvas, rng, street, paint)
    if rng.random() < 0.25:
        z = rng.uniform(4, 25)
        canvas.fill(flat((street.road[0], 0.0), (z, z + 0.35)), paint, Class.ROAD)


def _draw_zebra(canvas: Canvas, rng: Rng, street: Street, paint: Color) -> None:
    z = rng.uniform(4, 30)
    stripe = rng.uniform(0.4, 0.65)
    start_m = np.arange(street.road[0] + 0.3, street.road[1] - stripe, 2 * stripe)
    stripes = [flat((x, x + stripe), (z, z + 2.6)) for x in start_m]
    canvas.fill(np.concatenate(stripes), paint, Class.ROAD)


def _draw_shadows(canvas: Canvas, rng: Rng, street: Street) -> None:
    """Darken the ground that houses and trees keep from the sun."""
    sun = canvas.light.sun
    strength = float(np.linalg.norm(sun))
    if strength < 0.2:
        return
    canvas.flush()
    height, width = canvas.image_HW3.shape[:2]
    shadow_HW = np.zeros((height, width), np.uint8)
    side = 1 if sun[0] > 0 else -1
    edge = street.plot_edge(side) - side * rng.uniform(0.5, 14.0)
    z = rng.uniform(-5, 10)
    while z < 90:
        length = rng.uniform(6, 40)
        block = flat(_ordered(street.plot_edge(side), edge), (max(z, 0.8), max(z + length, 0.9)))
        corners = np.rint(canvas.camera.project(block)).astype(np.int32)
        cv2.fillPoly(shadow_HW, list(corners), (255,))
        z += length + rng.uniform(1, 15)
    if rng.random() < 0.4:  # sun through leaves
        blotches = noise_window(rng, height, width, 32) > rng.uniform(0.2, 1.0)
        shadow_HW[blotches] = 255
    shadow_HW[canvas.label_HW == Class.SKY] = 0
    light_HW = 1 - cv2.blur(shadow_HW, (3, 3)) * np.float32(rng.uniform(0.3, 0.65) * strength / 255)
    gain_HW4 = cv2.merge([light_HW, light_HW, light_HW, np.ones_like(light_HW)])
    canvas.pixels_HW4[:] = cv2.multiply(canvas.pixels_HW4, gain_HW4, dtype=cv2.CV_8U)
