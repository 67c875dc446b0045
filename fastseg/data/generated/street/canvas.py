"""The camera and the picture it fills, whose fourth channel is the class id.

A call draws colour and class together, so the two cannot disagree by a pixel.

Coordinates and shape letters as in shapes; H/W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.generated.street.shapes import Color, Point, mix

_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS
_NEAREST_M = 0.6  # what is nearer, or behind, is drawn at this depth


class Class(IntEnum):
    """The class ids of CamVid, in the order of fastseg.data.camvid.CLASSES."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a street that bends along x = bend * z^2."""

    focal_px: float  # focal length
    center_px: float  # column of the direction ahead
    horizon_px: float  # row of the horizon in that column
    height_m: float  # above the road
    roll: float  # tangent of the tilt to the side
    bend_per_m: float  # curvature of the street

    def project(self, points: Array) -> Array:
        """Return pixel columns and rows (..., 2) of world points (..., 3)."""
        roll = self.roll
        depth = np.maximum(points[..., 2:], _NEAREST_M)
        pixels = points @ (self.focal_px * np.array([(1.0, roll), (roll, -1.0), (0.0, 0.0)]))
        pixels += self.focal_px * self.height_m * np.array((-roll, 1.0))
        pixels /= depth
        pixels += (self.center_px, self.horizon_px)
        pixels += depth * (self.focal_px * self.bend_per_m * np.array((1.0, roll)))
        return np.asarray(pixels)

    def pixels_per_m(self, depth_m: float) -> float:
        """Return the scale of the picture at a distance."""
        return self.focal_px / depth_m


@dataclass(frozen=True)
class Light:
    """Sun and air."""

    sun: Point  # direction towards the sun (x, y, z), length 0 (overcast) to 1
    ambient: float  # light that reaches every side
    haze: Color  # colour of the sky at the horizon, to which far things fade
    haze_m: float  # distance at which 63 % of a colour is gone

    def on(self, normal: Point) -> float:
        """Return the brightness of a surface that faces a direction."""
        cosine = sum(n * s for n, s in zip(normal, self.sun, strict=True))
        return self.ambient + (1.0 - self.ambient) * max(cosine, 0.0)


class Canvas:
    """The picture that objects are drawn on, far ones first.

    Attributes:
        pixels_HW4: uint8, red, green, blue and class id.
        image_HW3, label_HW: views of its colours and its class ids.
        camera: how world points become pixels.
        light: the sun and the air.
    """

    def __init__(self, width: int, height: int, camera: Camera, light: Light) -> None:
        self.pixels_HW4: Array = np.zeros((height, width, 4), np.uint8)
        self.image_HW3, self.label_HW = self.pixels_HW4[..., :3], self.pixels_HW4[..., 3]
        self.camera, self.light = camera, light
        self._waiting: list[tuple[Array, tuple[float, ...], int]] = []  # shape, colour, line width

    def fill(self, polygons_PV3: Array, color: Color, class_id: int) -> None:
        """Draw polygons of world points (at least one), hazy by their distance."""
        middle_V3 = polygons_PV3[len(polygons_PV3) // 2]
        depth_m = (float(middle_V3[0, 2]) + float(middle_V3[2, 2])) / 2
        self._waiting.append((polygons_PV3, (*self.faded(color, depth_m), class_id), 0))

    def lines(self, paths_PV3: Array, color: Color, width_m: float, class_id: int) -> None:
        """Draw open paths of world points, at least one pixel wide."""
        depth_m = float(paths_PV3[0, 0, 2])
        width_px = max(1, round(width_m * self.camera.pixels_per_m(depth_m)))
        self._waiting.append((paths_PV3, (*self.faded(color, depth_m), class_id), width_px))

    def flush(self) -> None:
        """Draw what fill() and lines() were given; to be called before pixels are touched.

        Projecting all shapes at once takes a tenth of the time of one after the other.
        """
        if not self._waiting:
            return
        points_N3 = np.concatenate([shape.reshape(-1, 3) for shape, _, _ in self._waiting])
        fixed_N2 = (self.camera.project(points_N3) * _SUBPIXELS).astype(np.int32)
        start = 0
        for shape, color, width_px in self._waiting:
            count, corners, _ = shape.shape
            paths = list(fixed_N2[start : start + count * corners].reshape(count, corners, 2))
            start += count * corners
            if width_px:
                cv2.polylines(self.pixels_HW4, paths, False, color, width_px, 8, _SUBPIXEL_BITS)
            else:
                cv2.fillPoly(self.pixels_HW4, paths, color, 8, _SUBPIXEL_BITS)
        self._waiting.clear()

    def mark(self, polygons_PV3: Array, class_id: int) -> None:
        """Set the class of polygons of world points and leave their colours."""
        self.flush()
        inside_HW: Array = np.zeros(self.label_HW.shape, np.uint8)
        fixed_PV2 = (self.camera.project(polygons_PV3) * _SUBPIXELS).astype(np.int32)
        cv2.fillPoly(inside_HW, list(fixed_PV2), (1,), shift=_SUBPIXEL_BITS)
        self.label_HW[inside_HW > 0] = class_id

    def faded(self, color: Color, depth_m: float) -> Color:
        """Return a colour as it looks through the haze at a distance."""
        return mix(color, self.light.haze, 1.0 - math.exp(-depth_m / self.light.haze_m))
