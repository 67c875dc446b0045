"""The camera and the two pictures it fills: colours and class ids.

World coordinates are metres: x to the right, y up from the road, z ahead of the camera.
Shape letters: P polygons, V vertices, H/W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from fastseg.data.dataset import Array

Color = tuple[float, float, float]  # RGB, 0 to 255
_SUBPIXEL_BITS = 4
_NEAREST_M = 0.6


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
    """A pinhole camera above the road that bends along x = bend * z^2.

    Attributes:
        focal_px: focal length.
        center_px, horizon_px: column of the direction ahead, row of the horizon.
        height_m: above the road.
        roll: tangent of the tilt to the side.
        bend_per_m: curvature of the street.
    """

    focal_px: float
    center_px: float
    horizon_px: float
    height_m: float
    roll: float
    bend_per_m: float

    def project(self, points: Array) -> Array:
        """Return pixel columns and rows (..., 2) of world points (..., 3); behind is clamped."""
        depth = np.maximum(points[..., 2], _NEAREST_M)
        across = self.focal_px * (points[..., 0] / depth + self.bend_per_m * depth)
        down = self.focal_px * (self.height_m - points[..., 1]) / depth
        return np.stack(
            (
                self.center_px + across - self.roll * down,
                self.horizon_px + down + self.roll * across,
            ),
            axis=-1,
        )

    def row(self, depth_m: float, height_m: float = 0.0) -> float:
        """Return the row of a point straight ahead."""
        return self.horizon_px + self.focal_px * (self.height_m - height_m) / depth_m


@dataclass(frozen=True)
class Light:
    """Sun and air.

    Attributes:
        sun: direction towards the sun (x, y, z), length 0 (overcast) to 1.
        ambient: light that reaches every side.
        haze: colour that far things fade to.
        haze_m: distance at which 63 % of a colour is gone.
    """

    sun: tuple[float, float, float]
    ambient: float
    haze: Color
    haze_m: float

    def on(self, normal: tuple[float, float, float]) -> float:
        """Return the brightness of a surface that faces a direction."""
        cosine = sum(n * s for n, s in zip(normal, self.sun, strict=True))
        return self.ambient + (1.0 - self.ambient) * max(cosine, 0.0)


@dataclass(frozen=True)
class Canvas:
    """Colours and class ids that objects are drawn on, far ones first.

    Attributes:
        image_HW3: uint8 RGB.
        label_HW: uint8 class ids.
        camera: how world points become pixels.
        light: the sun and the air.
    """

    image_HW3: Array
    label_HW: Array
    camera: Camera
    light: Light

    def fill(self, polygons_PV3: Array, color: Color, class_id: int | None) -> None:
        """Draw polygons of world points; without a class only their colour."""
        corners_PV2 = self.camera.project(polygons_PV3)
        self.fill_pixels(
            corners_PV2, self.faded(color, float(polygons_PV3[..., 2].mean())), class_id
        )

    def fill_pixels(self, polygons_PV2: Array, color: Color, class_id: int | None) -> None:
        """Draw polygons given in pixels."""
        fixed = _fixed_point(polygons_PV2)
        cv2.fillPoly(self.image_HW3, fixed, color, shift=_SUBPIXEL_BITS)
        if class_id is not None:
            cv2.fillPoly(self.label_HW, fixed, (class_id,), shift=_SUBPIXEL_BITS)

    def mark(self, polygons_PV3: Array, class_id: int) -> None:
        """Set the class of polygons of world points and leave their colours."""
        fixed = _fixed_point(self.camera.project(polygons_PV3))
        cv2.fillPoly(self.label_HW, fixed, (class_id,), shift=_SUBPIXEL_BITS)

    def lines(
        self, paths_PV2: Array, color: Color, width_px: float, class_id: int | None = None
    ) -> None:
        """Draw open paths given in pixels, at least one pixel wide."""
        fixed, thickness = _fixed_point(paths_PV2), max(1, round(width_px))
        cv2.polylines(self.image_HW3, fixed, False, color, thickness, shift=_SUBPIXEL_BITS)
        if class_id is not None:
            cv2.polylines(self.label_HW, fixed, False, (class_id,), thickness, shift=_SUBPIXEL_BITS)

    def faded(self, color: Color, depth_m: float) -> Color:
        """Return a colour as it looks through the haze at a distance."""
        gone = 1.0 - float(np.exp(-depth_m / self.light.haze_m))
        return mix(color, self.light.haze, gone)

    def pixels_per_m(self, depth_m: float) -> float:
        """Return the scale of the picture at a distance."""
        return self.camera.focal_px / depth_m


def _fixed_point(points_PV2: Array) -> list[Array]:
    limited = np.clip(points_PV2, -(1 << 14), 1 << 14)  # OpenCV's coordinates are 32 bits
    return list(np.rint(limited * (1 << _SUBPIXEL_BITS)).astype(np.int32))


def mix(a: Color, b: Color, share_of_b: float) -> Color:
    """Return the colour between two."""
    s = share_of_b
    return (a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), a[2] + s * (b[2] - a[2]))


def shade(color: Color, factor: float) -> Color:
    """Return a colour in more or less light."""
    return (
        min(color[0] * factor, 255.0),
        min(color[1] * factor, 255.0),
        min(color[2] * factor, 255.0),
    )
