"""Class maps from shapes that an annotation tool wrote beside pictures: polygons, boxes, bitmaps.

Common to all tools that name a class for each shape and list the shapes of a picture in the order
in which they were drawn: a later one is on top. Class 0 is "background", every pixel that no shape
covers; labels called so are cut out of what is below. The other classes are in the order of their
names, or in that of a list of the tool's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import BACKGROUND, generated_color, is_background, is_ignored
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, LabelSizeError
from fastseg.data.file_dataset import Pair, Sieve
from fastseg.data.label_codec import (
    LIMIT_PX,
    fill_polygon,
    ignore_box,
    refuse_fractions,
    refuse_outside,
)

MAX_SHAPES = 100_000  # of one picture; a dense one has some hundreds
MAX_CORNERS = 1_000_000  # of one shape
Draw = Callable[[Array, int], None]


@dataclass(frozen=True)
class Shape:
    """One shape: what it is, and how it is drawn into a class map of the picture's size.

    Attributes:
        label: the class as the tool names it.
        draw: sets the class id given in the class map given; raises ValueError where it cannot.
        points: its corners [[x, y], ...] in pixels as the tool has them; None where it has none.
        is_area: they are around what it covers.
    """

    label: str
    draw: Draw
    points: Any = None
    is_area: bool = True


@dataclass(frozen=True)
class ShapeReader:
    """Draws the class map of a picture from its shapes.

    Attributes:
        shapes_of: returns the shapes of a pair, and the size that they were drawn at as (width,
            height), where it is known.
        ids: class id by label.
    """

    shapes_of: Callable[[Pair], tuple[Sequence[Shape], tuple[int, int] | None]]
    ids: Mapping[str, int]
    sieve: Sieve = field(default_factory=Sieve, compare=False)

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where no shape is."""
        label_HW: Array = np.zeros((height, width), np.uint8)
        shapes, size = self.shapes_of(pair)
        if size not in (None, (width, height)):
            raise LabelSizeError(
                f"{pair.image}: image is {width}x{height} (upright), {pair.label.name} says "
                f"{size}; shapes are drawn in pixels, so they have to agree"
            )
        for number, shape in enumerate(shapes, start=1):
            with self.sieve.annotation(partial(_ignore_box, label_HW, shape)):
                self._draw(label_HW, shape, f"{pair.label}: shape {number} of {pair.name}")
        return label_HW

    def _draw(self, label_HW: Array, shape: Shape, place: str) -> None:
        try:
            shape.draw(label_HW, self.ids[shape.label])
        except ValueError as error:
            raise DataError(f"{place}, {shape.label!r:.60}: {error}") from error


def _ignore_box(label_HW: Array, shape: Shape) -> None:
    found_V2 = _corners(shape)
    if np.isfinite(found_V2).all():  # else no box either
        ignore_box(label_HW, *found_V2.min(axis=0), *found_V2.max(axis=0))


def _corners(shape: Shape) -> Array:
    try:
        return corners(shape.points, at_least=1)
    except ValueError:
        return np.full((1, 2), np.inf)  # which is neither a box nor a fraction


def refuse_shapes_in_fractions(place: str, shapes: Iterable[Shape]) -> None:
    """Raise a DataError where the areas of a split are fractions of their pictures."""
    refuse_fractions(place, (_corners(shape) for shape in shapes if shape.is_area))


def name_classes(
    labels: Iterable[str], place: str, listed: Sequence[str] = ()
) -> tuple[tuple[ClassInfo, ...], dict[str, int]]:
    """Return the classes that labels name, after "background", and the class id of each label.

    Spaces around a label are no part of its name.

    Args:
        labels: all labels of the data set.
        place: for messages.
        listed: the tool's own list, whose order then counts, classes without a shape included.

    Raises:
        DataError: there are none, or too many, or two differ by capital letters alone
            and are not both listed.
    """
    labels = {*labels}
    found = {*(label.strip() for label in labels), *listed}
    ignored = {name for name in found if is_ignored(name)}
    around = {name for name in found if is_background(name)}
    order = [*dict.fromkeys(listed), *sorted(found - {*listed})]
    names = [name for name in order if name not in ignored | around]
    _refuse_alike(place, names, listed)
    if not 1 <= len(names) < MAX_CLASSES:
        raise DataError(
            f"{place}: names {len(names)} classes besides the background; expected 1 to "
            f"{MAX_CLASSES - 1}"
        )
    classes = (
        BACKGROUND,
        *(ClassInfo(name, generated_color(index)) for index, name in enumerate(names)),
    )
    ids = {name: index for index, name in enumerate(names, start=1)}
    ids |= dict.fromkeys(around, 0) | dict.fromkeys(ignored, IGNORE_INDEX)
    return classes, ids | {label: ids[label.strip()] for label in labels}


def _refuse_alike(place: str, names: Sequence[str], listed: Sequence[str]) -> None:
    """Refuse a name that is another's but for capital letters: a slip of a hand, if not listed."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.lower(), name)
        if other != name and name not in listed:
            raise DataError(
                f"{place}: has both classes {other!r} and {name!r}, which differ by capital "
                "letters alone; give them one name, or two that differ more"
            )


def polygon(label: str, points: Any) -> Shape:
    """Return a polygon of corners [[x, y], ...] in pixels."""

    def draw(label_HW: Array, class_id: int) -> None:
        _fill(label_HW, corners(points, at_least=3), class_id)

    return Shape(label, draw, points)


def box(label: str, points: Any) -> Shape:
    """Return a rectangle of two opposite corners [[x, y], [x, y]], or of all four, in pixels."""

    def draw(label_HW: Array, class_id: int) -> None:
        found_V2 = corners(points, at_least=2)
        if len(found_V2) != 2:  # some tools write all, and turn it
            _fill(label_HW, found_V2, class_id)
            return
        (x0, y0), (x1, y1) = found_V2.tolist()
        _fill(label_HW, np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), class_id)

    return Shape(label, draw, points)


def bitmap(
    label: str, mask_hw: Callable[[], Array], left: int = 0, top: int = 0, points: Any = None
) -> Shape:
    """Return a bitmap, (h, w) bool, that lies with its corner at (left, top), of these points."""

    def draw(label_HW: Array, class_id: int) -> None:
        mask = mask_hw()
        height, width = mask.shape
        inside = 0 <= left <= label_HW.shape[1] - width and 0 <= top <= label_HW.shape[0] - height
        if not inside:
            raise ValueError(f"bitmap of {width}x{height} at ({left}, {top}) leaves the picture")
        label_HW[top : top + height, left : left + width][mask] = class_id

    return Shape(label, draw, points)


def stroke(label: str, points: Any, width_px: int) -> Shape:
    """Return a line through corners, or a dot where there is one, of a width in pixels."""

    def draw(label_HW: Array, class_id: int) -> None:
        found_V2 = corners(points, at_least=1)
        corners_V2 = np.rint(found_V2.clip(-LIMIT_PX, LIMIT_PX)).astype(np.int32)
        if len(corners_V2) == 1:  # of which OpenCV draws nothing
            corners_V2 = corners_V2.repeat(2, axis=0)
        refuse_outside(label_HW, found_V2)
        cv2.polylines(label_HW, [corners_V2], False, (class_id,), width_px)

    return Shape(label, draw, points, is_area=False)


def disc(label: str, points: Any) -> Shape:
    """Return a circle of its middle and a point of its rim."""

    def draw(label_HW: Array, class_id: int) -> None:
        middle, rim = corners(points, at_least=2)[:2]
        angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
        radius = float(np.hypot(*(rim - middle)))
        outline_V2 = middle + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        _fill(label_HW, outline_V2, class_id)

    return Shape(label, draw, points)


def _fill(label_HW: Array, outline_V2: Array, class_id: int) -> None:
    refuse_outside(label_HW, outline_V2)
    fill_polygon(label_HW, outline_V2, class_id)


def corners(points: Any, at_least: int) -> Array:
    """Return corners as (V, 2) float64.

    Raises:
        ValueError: they are no list of pairs of finite numbers, or too few or too many.
    """
    try:
        corners_V2 = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("points are no list of [x, y]") from error
    if corners_V2.ndim != 2 or corners_V2.shape[1] != 2 or not np.isfinite(corners_V2).all():
        raise ValueError("points are no list of [x, y]")
    if not at_least <= len(corners_V2) <= MAX_CORNERS:
        raise ValueError(f"has {len(corners_V2)} points; expected {at_least} or more")
    return corners_V2
