"""Put a street together, sky and all, and take its picture: texture, light, blur, sensor noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from fastseg.data.camvid import CLASSES
from fastseg.data.dataset import Array
from fastseg.data.generated.noise import add_grain, clouds, noise_window
from fastseg.data.generated.procedural import ProceduralDataset, open_procedural
from fastseg.data.generated.street import buildings, furniture, people, plants, vehicles
from fastseg.data.generated.street.buildings import WALLS
from fastseg.data.generated.street.canvas import Camera, Canvas, Class, Light
from fastseg.data.generated.street.ground import Street, draw_ground, random_street
from fastseg.data.generated.street.plants import LEAVES
from fastseg.data.generated.street.shapes import Color, Pair, Rng, across, outline, shade

_FAR_M = 65.0
Thing = tuple[float, Callable[..., None], tuple[object, ...]]  # depth, what draws it, where
_HORIZONS: tuple[Color, ...] = (
    (244, 246, 248),
    (220, 226, 230),
    (206, 204, 198),
    (180, 190, 204),
)
# class -> strength of grain and of blotches, relative to brightness
TEXTURE = {
    Class.SKY: (0.0, 0.0),
    Class.BUILDING: (0.08, 0.08),
    Class.POLE: (0.04, 0.04),
    Class.ROAD: (0.04, 0.04),
    Class.PAVEMENT: (0.04, 0.05),
    Class.TREE: (0.16, 0.12),
    Class.SIGN: (0.04, 0.04),
    Class.FENCE: (0.06, 0.05),
    Class.CAR: (0.04, 0.08),
    Class.PEDESTRIAN: (0.08, 0.08),
    Class.BICYCLIST: (0.08, 0.08),
}

_GAIN_UNIT = 100  # brightness 1 as a byte
_BACKLIGHT = (0.4, 1.15)  # brightness of everything but the sky
ZENITHS: tuple[Color, ...] = (
    (96, 140, 200),
    (150, 180, 214),
    (200, 208, 216),
    (236, 238, 240),
    (140, 146, 154),
    (60, 92, 150),
)
_BACKDROP_M = 110.0


def open_street(location: str, split: str) -> ProceduralDataset:
    """Open generated street scenes with the classes and colours of CamVid."""
    return open_procedural("synthetic", location, split, CLASSES, draw_street)


def draw_street(rng: Rng, width: int, height: int) -> tuple[Array, Array]:
    """Draw one street scene.

    Returns:
        image (height, width, 3) uint8 RGB and class ids (height, width) uint8, CamVid's classes.
    """
    street = random_street(rng)
    camera, light = random_camera(rng, width, height), random_light(rng)
    canvas = Canvas(width, height, camera, light)
    draw_sky(canvas, rng)
    draw_backdrop(canvas, rng)
    draw_ground(canvas, rng, street)
    groups = (_plots, _traffic, _furniture, _people)
    things = [thing for group in groups for thing in group(rng, street)]
    for _, draw, where in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, rng, *where)
    canvas.flush()
    label_HW = cv2.extractChannel(canvas.pixels_HW4, 3)
    return photograph(rng, cv2.cvtColor(canvas.pixels_HW4, cv2.COLOR_RGBA2RGB), label_HW), label_HW


def random_camera(rng: Rng, width: int, height: int) -> Camera:
    """Draw where the camera is and how it looks."""
    return Camera(
        focal_px=width * rng.uniform(0.75, 1.25),
        center_px=width * rng.uniform(0.35, 0.65),
        horizon_px=height * rng.uniform(0.36, 0.6),
        height_m=rng.uniform(1.15, 1.9),
        roll=rng.normal(0.0, 0.015),
        bend_per_m=rng.normal(0.0, 0.0012),
    )


def random_light(rng: Rng) -> Light:
    """Draw the weather."""
    direction = np.array((rng.normal(), rng.uniform(0.3, 1.2), rng.normal()))
    strength = max(rng.uniform(-0.4, 1.0), 0.0)  # 0 is overcast
    x, y, z = direction / np.linalg.norm(direction) * strength
    return Light(
        sun=(float(x), float(y), float(z)),
        ambient=rng.uniform(0.45, 0.75) if strength else 0.9,
        haze=_HORIZONS[rng.integers(len(_HORIZONS))],
        haze_m=rng.uniform(80, 400),
    )


def _plots(rng: Rng, street: Street) -> Iterator[Thing]:
    """Yield houses, trees, hedges, fences and walls along both sides."""
    for side in (-1, 1):
        built = rng.choice((0.9, 0.6, 0.2))
        edge = street.plot_edge(side)
        z = rng.uniform(-6.0, 3.0)
        while z < _FAR_M:
            length = rng.uniform(5, 16) * (1 + max(z, 0.0) / 40)  # far plots are drawn coarser
            end = z + length
            if _in_side_road(street, side, z, end):
                z = street.side_road[1] if street.side_road else end
                continue
            span = (max(z, 0.8), end - 0.2)
            if end > 2.5:
                if rng.random() < built:
                    x = edge + side * max(rng.normal(0.5, 2.0), 0.0)
                    yield end, buildings.draw_building, (x, span)
                else:
                    yield from _garden(rng, edge, side, span)
            z = end


def _garden(rng: Rng, edge: float, side: int, z: Pair) -> Iterator[Thing]:
    """Yield a plot without a house: trees, and a hedge, a fence or a wall at the street."""
    for _ in range(int(rng.integers(1, 3))):
        tree_x, depth = edge + side * rng.uniform(1.0, 14.0), max(rng.uniform(*z), 3.0)
        yield depth, plants.draw_tree, (tree_x, depth)
    kind = rng.choice(("hedge", "panels", "wall", "open"), p=(0.35, 0.2, 0.2, 0.25))
    if kind == "hedge":
        height = rng.uniform(0.8, 2.4)
        for start in np.arange(max(z[0], 2.5), z[1], 1.5 + z[0] / 8):
            x = (edge, edge + side * (2.5 + z[0] / 8))
            yield start, plants.draw_bush, (x, float(start), height)
    elif kind == "panels":
        yield z[0], furniture.draw_panel_fence, (edge, z)
    elif kind == "wall":
        yield z[0], furniture.draw_wall, (edge, z)


def _traffic(rng: Rng, street: Street) -> Iterator[Thing]:
    """Yield parked, following and oncoming vehicles, and bicyclists on the road."""
    for side in (-1, 1):
        x = street.kerb(side) - side * 1.1
        if rng.random() < 0.45:
            for z in np.arange(rng.uniform(5, 20), 50, rng.uniform(5.5, 14)):
                turn = float(rng.choice((0.0, np.pi))) + rng.normal(0, 0.03)
                yield float(z), vehicles.draw_vehicle, (x, float(z), turn)
    for _ in range(int(rng.integers(0, 4))):
        z, x = rng.uniform(6, 50), rng.uniform(street.road[0] + 1.2, street.road[1] - 1.2)
        heading = (0.0 if abs(x) < 1.8 else float(np.pi)) + rng.normal(0, 0.06)
        if rng.random() < 0.1:
            heading += np.pi / 2
        yield z, vehicles.draw_vehicle, (x, z, heading)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.45, 0.3, 0.15, 0.1)))):
        z, x = rng.uniform(4, 35), rng.uniform(*street.road)
        yield z, people.draw_bicyclist, (x, z)


def _furniture(rng: Rng, street: Street) -> Iterator[Thing]:
    """Yield what stands on the pavements."""
    kinds = (
        (furniture.draw_lamp_post, 3),
        (furniture.draw_sign, 3),
        (furniture.draw_traffic_light, 2),
        (furniture.draw_bollard, 4),
        (furniture.draw_board, 2),
    )
    for side in (-1, 1):
        for draw, most in kinds:
            for _ in range(int(rng.integers(0, most + 1))):
                x = street.kerb(side) + side * rng.uniform(0.3, 1.0)
                z = rng.uniform(3.5, 50)
                yield z, draw, (x, z)
        if rng.random() < 0.25:
            start = rng.uniform(2, 25)
            z_span = (start, start + rng.uniform(4, 25))
            x = street.kerb(side) + side * 0.3
            yield start, furniture.draw_railing, (x, z_span)
        if rng.random() < 0.25:
            for z in np.arange(rng.uniform(4, 12), 45, rng.uniform(8, 18)):
                x = street.kerb(side) + side * 0.8
                yield float(z), plants.draw_tree, (x, float(z))


def _people(rng: Rng, street: Street) -> Iterator[Thing]:
    """Yield pedestrians, alone and in groups, a few of them on the road."""
    for _ in range(int(rng.integers(0, 8))):
        side = int(rng.choice((-1, 1)))
        width = abs(street.plot_edge(side) - street.kerb(side))
        x = street.kerb(side) + side * rng.uniform(0.2, width)
        if rng.random() < 0.15:
            x = rng.uniform(*street.road)
        z = rng.uniform(4, 40)
        for _ in range(int(rng.choice((1, 2, 3), p=(0.6, 0.3, 0.1)))):
            yield z, people.draw_pedestrian, (x, z)
            x, z = x + rng.uniform(0.4, 0.8), z + rng.uniform(0.0, 0.6)


def _in_side_road(street: Street, side: int, start: float, end: float) -> bool:
    if street.side_road is None or street.side_road[2] != side:
        return False
    return start < street.side_road[1] - 0.01 and end > street.side_road[0]


def photograph(rng: Rng, image_HW3: Array, label_HW: Array) -> Array:
    """Return the picture as a camera would take it, (H, W, 3) uint8."""
    height, width = label_HW.shape
    gain_HW = _surface(rng, label_HW) * _vignette(rng, height, width)
    gain_HW3 = cv2.cvtColor(cv2.convertScaleAbs(gain_HW, alpha=_GAIN_UNIT), cv2.COLOR_GRAY2RGB)
    photo_HW3 = cv2.multiply(image_HW3, gain_HW3, scale=1 / _GAIN_UNIT)
    sigma_px = rng.uniform(0.0, 1.1) * height / 360
    if sigma_px > 0.3:
        photo_HW3 = cv2.GaussianBlur(photo_HW3, (0, 0), sigma_px)
    photo_HW3 = cv2.LUT(photo_HW3, _tone_curves(rng))
    return add_grain(rng, photo_HW3, rng.uniform(0.5, 6.0))


def _surface(rng: Rng, label_HW: Array) -> Array:
    """Return the brightness of every point around 1: light from behind, grain, blotches."""
    height, width = label_HW.shape
    light_K = np.full(256, rng.uniform(*_BACKLIGHT), np.float32)
    light_K[Class.SKY] = 1
    strength_2K = np.zeros((2, 256), np.float32)
    strength_2K[:, : len(TEXTURE)] = np.transpose([TEXTURE[class_id] for class_id in Class])
    strength_2K *= rng.uniform(0.3, 2.0, strength_2K.shape)  # so that texture is no give-away
    grain_HW = cv2.LUT(label_HW, strength_2K[0]) * noise_window(rng, height, width, 2)
    blotch_px = int(rng.choice((8, 16, 32)))
    blotch_HW = cv2.LUT(label_HW, strength_2K[1]) * noise_window(rng, height, width, blotch_px)
    return np.asarray(cv2.LUT(label_HW, light_K) * (1 + grain_HW + blotch_HW))


def _vignette(rng: Rng, height: int, width: int) -> Array:
    rows_H1 = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns_1W = np.linspace(-1, 1, width, dtype=np.float32)[None]
    dark, slope = rng.uniform(0.0, 0.25), rng.uniform(-0.15, 0.15)
    return np.asarray((1 + slope * rows_H1 - dark / 2 * rows_H1**2) - dark / 2 * columns_1W**2)


def _tone_curves(rng: Rng) -> Array:
    """Return exposure, contrast, gamma and white balance as (256, 1, 3) uint8."""
    exposure_3 = rng.uniform(0.7, 1.5) * rng.uniform(0.93, 1.07, 3)
    gamma, black = rng.uniform(0.75, 1.35), rng.uniform(0.0, 0.06)
    light_K13 = np.linspace(0, 1, 256)[:, None, None] * exposure_3
    curve_K13 = black + (1 - black) * np.clip(light_K13, 0, 1) ** gamma
    return np.rint(curve_K13 * 255).astype(np.uint8)


def draw_sky(canvas: Canvas, rng: Rng) -> None:
    """Fill the picture down to the horizon with a gradient and clouds."""
    width = canvas.label_HW.shape[1]
    rows = round(canvas.camera.horizon_px * 1.2)  # 1.2: where the camera is tilted
    zenith = ZENITHS[rng.integers(len(ZENITHS))]
    down_H1 = np.linspace(0.0, 1.0, rows, dtype=np.float32)[:, None]
    cover_HW = clouds(rng, rows, width) / 2 + np.float32(rng.uniform(-1.0, 1.2))
    cover_HW = np.clip(cover_HW, 0.0, 1.0) * np.float32(rng.uniform(0.2, 1.0))
    white = rng.uniform(170, 255)
    for channel, (high, low) in enumerate(zip(zenith, canvas.light.haze, strict=True)):
        clear_H1 = high + (low - high) * down_H1
        canvas.image_HW3[:rows, :, channel] = clear_H1 + (white - clear_H1) * cover_HW
    canvas.label_HW[:] = Class.SKY


def draw_backdrop(canvas: Canvas, rng: Rng) -> None:
    """Draw a far row of houses and trees along the horizon."""
    wooded = rng.choice((0.1, 0.5, 0.9))
    lit = canvas.light.on((0, 0, -1))
    left = -_BACKDROP_M * 1.2
    while left < _BACKDROP_M * 1.2:
        right = left + rng.uniform(6, 25)
        top = rng.uniform(2.5, 13)
        if rng.random() < wooded:
            leaf = shade(LEAVES[rng.integers(len(LEAVES))], lit)
            canvas.fill(_treetops(rng, (left, right), top), leaf, Class.TREE)
        else:
            wall = shade(WALLS[rng.integers(len(WALLS))], lit)
            house = across((left, right), _BACKDROP_M, (-1.0, top))
            canvas.fill(house, wall, Class.BUILDING)
        left = right


def _treetops(rng: Rng, x: Pair, top: float) -> Array:
    """Return the ragged outline of a row of far trees, (1, V, 3)."""
    along_m = np.arange(x[0] - 2, x[1] + 2, 0.5)
    up_m = top * (0.8 + 0.12 * noise_window(rng, 1, len(along_m), 4)[0])
    crowns = np.stack((along_m, up_m), axis=-1)
    feet = np.array([(x[1] + 2, -1.0), (x[0] - 2, -1.0)])
    return outline(np.concatenate((crowns, feet)), 0.0, _BACKDROP_M)
