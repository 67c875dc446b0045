"""What apps make of a class map: shares, regions, boxes, soft masks, the way ahead. numpy alone.

docs/masks.md has a picture of each. Shape letters: H and W pixels, K classes.
"""

from dataclasses import dataclass, field
from typing import AbstractSet, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.regions import (
    coco_runs,
    find_runs,
    paint,
    regions_of,
    rings,
    simplify,
)

Ids = Union[int, Sequence[int], AbstractSet[int]]
OPAQUE = 255  # of a soft mask
_IDS = 256  # that uint8 can hold
_MAX_EDGE_PX = 1000  # sums of the blur fit 32 bits: 255 * 1001 * 1001 < 2 ** 31


class Box(NamedTuple):
    """The pixels left <= x < right, top <= y < bottom: frame[top:bottom, left:right]."""

    left: int
    top: int
    right: int
    bottom: int


class Ground(NamedTuple):
    """A part of the ground and where it is nearest to the camera."""

    mask_HW: Array  # bool
    row: int  # the lowest row that the mask reaches
    left: int  # in that row, the pixels left <= x < right
    right: int


@dataclass(frozen=True)
class Region:
    """A connected region of one class.

    Attributes:
        class_id: of all of its pixels.
        area_px: how many they are.
        box: the smallest that holds it.
        centroid: (x, y), the means of its pixels' columns and rows, as OpenCV has them: the centre
            of the pixel in the first row and column is (0, 0).
    """

    class_id: int
    area_px: int
    box: Box
    centroid: Tuple[float, float]
    _number: int = field(repr=False)
    _numbers_HW: Array = field(repr=False, compare=False)

    @property
    def mask_hw(self) -> Array:
        """Return where it is in its box, bool (box.bottom - box.top, box.right - box.left)."""
        box = self.box
        mask_hw: Array = (
            self._numbers_HW[box.top : box.bottom, box.left : box.right] == self._number
        )
        return mask_hw

    @property
    def coco_rle(self) -> Dict[str, object]:
        """Return it as coco_rle() does, in the picture."""
        return coco_runs(self.mask_hw, self.box.top, self.box.left, self._numbers_HW.shape)


class Polygon(NamedTuple):
    """The outlines of a region, int32 (V, 2), x and y of each corner in turn.

    They go along the edges of pixels: the first pixel has its corners at (0, 0) and (1, 1). On the
    screen the outer one is clockwise, and those of holes are not.
    """

    outer_V2: Array
    holes_V2: Tuple[Array, ...]


def class_shares(classes_HW: Array, num_classes: int) -> Array:
    """Return the fraction of the pixels that each class has.

    Args:
        classes_HW: ids, uint8.
        num_classes: K.

    Returns:
        float64 (K,). Ids of K and more (ignored pixels) belong to no class, so that the sum may
        be below 1.

    Raises:
        ValueError: not a class map.
    """
    _check_class_map(classes_HW)
    counts = np.bincount(classes_HW.ravel(), minlength=num_classes)[:num_classes]
    shares: Array = counts / classes_HW.size
    return shares


def class_mask(classes_HW: Array, ids: Ids) -> Array:
    """Return where any of some classes is.

    Args:
        classes_HW: ids, uint8.
        ids: one id or several.

    Returns:
        bool (H, W).

    Raises:
        ValueError: not a class map, or an id that is not 0 to 255.
    """
    _check_class_map(classes_HW)
    mask_HW: Array = _chosen(ids)[classes_HW]
    return mask_HW


def largest_region(classes_HW: Array, class_id: int) -> Array:
    """Return the largest connected region of a class.

    Args:
        classes_HW: ids, uint8.
        class_id: the class.

    Returns:
        bool (H, W). Pixels that touch at a corner are connected. Of equally large regions the one
        that comes first, by rows from the top; all False where the class does not occur.

    Raises:
        ValueError: not a class map, or an id that is not 0 to 255.
    """
    return _largest_region(class_mask(classes_HW, class_id))


def regions(classes_HW: Array, ids: Optional[Ids] = None, min_area_px: int = 1) -> List[Region]:
    """Return the connected regions of some classes, the largest first.

    Args:
        classes_HW: ids, uint8.
        ids: one id or several; None: all but 255, the ignored pixels.
        min_area_px: smaller ones are left out.

    Returns:
        Pixels that touch at a corner are connected. Equally large ones come by rows from the top.

    Raises:
        ValueError: not a class map, or an id that is not 0 to 255.
    """
    _check_class_map(classes_HW)
    numbers = np.arange(1, _IDS + 1, dtype=np.uint16) * _chosen(
        range(_IDS - 1) if ids is None else ids
    )
    runs = find_runs(numbers[classes_HW])
    if not len(runs.starts):
        return []
    firsts, region_R = np.unique(regions_of(runs), return_inverse=True)
    lengths_R = runs.stops - runs.starts
    row_R, left_R = np.divmod(runs.starts, runs.stride)
    left_R -= 1  # the empty column before each row
    right_R = left_R + lengths_R
    areas = np.bincount(region_R, lengths_R).astype(np.int64)
    x_sums = np.bincount(region_R, lengths_R * (left_R + right_R - 1) / 2)
    sums = np.stack([x_sums, np.bincount(region_R, lengths_R * row_R)], axis=1)
    centroids = sums / areas[:, None]
    by_region = np.argsort(region_R, kind="stable")
    begins = np.searchsorted(region_R[by_region], np.arange(len(firsts)))
    left = np.minimum.reduceat(left_R[by_region], begins)
    right = np.maximum.reduceat(right_R[by_region], begins)
    top = np.minimum.reduceat(row_R[by_region], begins)
    bottom = np.maximum.reduceat(row_R[by_region], begins) + 1
    boxes = np.stack([left, top, right, bottom], axis=1).tolist()
    numbers_HW = paint(runs, region_R + 1, len(classes_HW))
    class_ids = runs.values[firsts] - 1
    return [
        Region(
            int(class_ids[i]), int(areas[i]), Box(*boxes[i]), tuple(centroids[i].tolist()),
            i + 1, numbers_HW,
        )
        for i in np.argsort(-areas, kind="stable").tolist()
        if areas[i] >= min_area_px
    ]  # fmt: skip


def polygons(mask_HW: Array, tolerance_px: float = 1.0) -> List[Polygon]:
    """Return the outlines of the connected regions of a mask, by rows from the top.

    Args:
        mask_HW: bool, or numbers that are 0 outside.
        tolerance_px: no point of an outline is further from the exact one, nor the other way round;
            0: exact, every corner of every pixel's edge.

    Raises:
        ValueError: an array that is not (H, W), or a tolerance below 0.
    """
    if not tolerance_px >= 0:
        raise ValueError(f"tolerance_px is {tolerance_px}; expected 0 (exact) or more")
    mask_HW = _checked_mask(mask_HW)
    runs = find_runs(mask_HW)
    numbers_HW = paint(runs, regions_of(runs) + 1, len(mask_HW))
    found: Dict[int, List[Array]] = {}  # the outer one comes before its holes
    for ring_V2, is_hole in rings(mask_HW):
        x, y = ring_V2[0]
        number = int(numbers_HW[y - is_hole, x])  # a hole begins below a pixel of its region
        simple_V2 = simplify(ring_V2, tolerance_px)
        found.setdefault(number, []).append(simple_V2[::-1] if is_hole else simple_V2)
    return [Polygon(outer_V2, tuple(holes)) for outer_V2, *holes in found.values()]


def coco_rle(mask_HW: Array) -> Dict[str, object]:
    """Return a mask as COCO's run lengths, packed as pycocotools does.

    Args:
        mask_HW: bool, or numbers that are 0 outside.

    Returns:
        {"size": [H, W], "counts": text}, which JSON takes.

    Raises:
        ValueError: an array that is not (H, W).
    """
    mask_HW = _checked_mask(mask_HW)
    return coco_runs(mask_HW, 0, 0, mask_HW.shape)


def bounding_box(mask_HW: Array) -> Optional[Box]:
    """Return the smallest box that holds a mask, or None if the mask is empty.

    Args:
        mask_HW: bool, or numbers that are 0 outside.

    Raises:
        ValueError: an array that is not (H, W).
    """
    mask_HW = _checked_mask(mask_HW)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def unsure(
    confidence_HW: Array, below: Union[float, Sequence[float]], classes_HW: Optional[Array] = None
) -> Array:
    """Return where the network is not sure enough of its class.

    Args:
        confidence_HW: uint8, of infer(frame, confidence=confidence_HW).
        below: the probability, 0 to 1, that is enough; or one for each class.
        classes_HW: ids, uint8; needed with one for each class. An id beyond them (ignored
            pixels) is always unsure.

    Returns:
        bool (H, W).

    Raises:
        ValueError: arrays of another type or size, or a probability outside 0 to 1.
    """
    levels = np.asarray(below, np.float64)
    if levels.ndim > 1 or levels.size > _IDS or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"below is {below}; expected 0 to 1, or one for each class")
    if not _is_map(confidence_HW):
        raise ValueError(f"expected a confidence, uint8 (H, W), got {_found(confidence_HW)}")
    limits = np.ceil(levels * OPAQUE).astype(np.uint16)
    if not levels.ndim:
        mask_HW: Array = confidence_HW < limits
        return mask_HW
    if classes_HW is None or np.shape(classes_HW) != confidence_HW.shape:
        raise ValueError("one probability for each class needs the class map of the same frame")
    _check_class_map(classes_HW)
    limit_of = np.full(_IDS, OPAQUE + 1, np.uint16)
    limit_of[: len(limits)] = limits
    mask_HW = confidence_HW < limit_of[classes_HW]
    return mask_HW


def with_unsure(
    classes_HW: Array,
    confidence_HW: Array,
    below: Union[float, Sequence[float]],
    unsure_id: int = _IDS - 1,
) -> Array:
    """Return a class map in which unsure pixels have a class of their own.

    Args:
        classes_HW: ids, uint8; with one probability for all, of any type.
        confidence_HW: uint8; see unsure().
        below: see unsure().
        unsure_id: of that class; 255 is that of ignored pixels, which overlays leave as they are.

    Returns:
        (H, W), a copy.

    Raises:
        ValueError: as unsure() does, or what is not one id, 0 to 255.
    """
    chosen = _chosen(unsure_id)
    if chosen.sum() != 1:
        raise ValueError(f"unsure_id is {unsure_id!r}; expected one id")
    if not isinstance(classes_HW, np.ndarray):
        _check_class_map(classes_HW)
    if np.shape(confidence_HW) != classes_HW.shape:
        raise ValueError(
            f"expected a confidence of the class map's {classes_HW.shape}, got "
            f"{_found(confidence_HW)}; give what infer() wrote for that frame"
        )
    marked_HW = classes_HW.copy()
    marked_HW[unsure(confidence_HW, below, classes_HW)] = chosen.argmax()
    return marked_HW


def soft_mask(classes_HW: Array, ids: Ids, width_px: int) -> Array:
    """Return the opacity of some classes, with a soft edge, to lay them over a background.

    The mean of a square window around each pixel; at the border, of its part in the picture.

    Args:
        classes_HW: ids, uint8.
        ids: one id or several.
        width_px: from transparent to opaque, half of it on either side of the edge. 1 is a hard
            edge; an even number works as the next odd one.

    Returns:
        uint8 (H, W), 0 to 255.

    Raises:
        ValueError: not a class map, an id that is not 0 to 255, or a width outside 1 to 1000.
    """
    is_whole = isinstance(width_px, (int, np.integer))
    if not is_whole or not 1 <= width_px <= _MAX_EDGE_PX:
        raise ValueError(
            f"width_px is {width_px!r}; expected 1 (hard) to {_MAX_EDGE_PX}, a whole number"
        )
    alpha_HW = class_mask(classes_HW, ids) * np.uint8(OPAQUE)
    radius = width_px // 2
    sums_HW = _window_sums(_window_sums(alpha_HW, radius).T, radius).T
    height, width = classes_HW.shape
    pixels_HW = _window_lengths(height, radius)[:, None] * _window_lengths(width, radius)
    soft_HW: Array = ((sums_HW + pixels_HW // 2) // pixels_HW).astype(np.uint8)
    return soft_HW


def drivable_area(classes_HW: Array, ids: Ids) -> Optional[Ground]:
    """Return the largest connected region of some classes, and its widest gapless lower end.

    Args:
        classes_HW: ids, uint8.
        ids: what can be driven on, one id or several.

    Returns:
        The region, its lowest row, and the longest stretch of it in that row; None if none of
        the classes occurs.

    Raises:
        ValueError: not a class map, or an id that is not 0 to 255.
    """
    mask_HW = _largest_region(class_mask(classes_HW, ids))
    box = bounding_box(mask_HW)
    if box is None:
        return None
    row = box.bottom - 1
    edges = np.flatnonzero(np.diff(mask_HW[row].astype(np.int8), prepend=0, append=0))
    longest = int((edges[1::2] - edges[::2]).argmax())
    return Ground(mask_HW, row, int(edges[2 * longest]), int(edges[2 * longest + 1]))


def lane_mask(classes_HW: Array, ids: Ids) -> Optional[Ground]:
    """Return all pixels of lane lines, dashes too, and how far apart their lower ends are.

    Args:
        classes_HW: ids, uint8.
        ids: of lane lines, one id or several.

    Returns:
        The mask, its lowest row, and in that row the stretch from its first to its last pixel;
        None if none of the classes occurs.

    Raises:
        ValueError: not a class map, or an id that is not 0 to 255.
    """
    mask_HW = class_mask(classes_HW, ids)
    box = bounding_box(mask_HW)
    if box is None:
        return None
    row = box.bottom - 1
    columns = np.flatnonzero(mask_HW[row])
    return Ground(mask_HW, row, int(columns[0]), int(columns[-1]) + 1)


def _chosen(ids: Ids) -> Array:
    """Return for each id whether it is among some, bool (256,)."""
    given = np.asarray(list(ids) if isinstance(ids, AbstractSet) else ids, object).ravel()
    kinds = {np.asarray(each).dtype.kind for each in given}  # beside a 2, numpy takes True for 1
    wanted = np.asarray(given.tolist())
    are_ids = kinds <= set("iuf") and ((wanted >= 0) & (wanted < _IDS)).all()
    if not are_ids or (wanted % 1).any():
        raise ValueError(f"class ids are {ids!r}; expected whole numbers, 0 to {_IDS - 1}")
    chosen = np.zeros(_IDS, bool)
    chosen[wanted.astype(np.intp)] = True
    return chosen


def _checked_mask(mask_HW: Array) -> Array:
    if not isinstance(mask_HW, np.ndarray) or mask_HW.ndim != 2:
        raise ValueError(f"expected a mask (H, W), a numpy array, got {_found(mask_HW)}")
    return mask_HW.astype(bool, copy=False)


def _check_class_map(classes_HW: Array) -> None:
    if not _is_map(classes_HW) or not classes_HW.size:
        raise ValueError(
            f"expected a class map, uint8 (H, W), got {_found(classes_HW)}; "
            "give what infer() returns for one frame"
        )


def _is_map(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 2


def _found(given: Any) -> str:
    return f"{getattr(given, 'dtype', type(given).__name__)} {getattr(given, 'shape', '')}".strip()


def _window_sums(values_HW: Array, radius: int) -> Array:
    """Return the sums over `radius` rows up and down, int32, by differences of running sums."""
    height = len(values_HW)
    running = np.zeros((height + 1, values_HW.shape[1]), np.int32)
    np.cumsum(values_HW, axis=0, dtype=np.int32, out=running[1:])
    start, stop = _window(height, radius)
    sums_HW: Array = running[stop] - running[start]
    return sums_HW


def _window_lengths(size: int, radius: int) -> Array:
    start, stop = _window(size, radius)
    lengths: Array = (stop - start).astype(np.int32)
    return lengths


def _window(size: int, radius: int) -> Tuple[Array, Array]:
    centre = np.arange(size)
    return np.maximum(centre - radius, 0), np.minimum(centre + radius + 1, size)


def _largest_region(mask_HW: Array) -> Array:
    """Return the connected region with the most pixels; all False if the mask is empty."""
    runs = find_runs(mask_HW)
    if not len(runs.starts):
        return np.zeros(mask_HW.shape, bool)
    region_R = regions_of(runs)
    sizes = np.bincount(region_R, weights=runs.stops - runs.starts)
    return paint(runs, region_R == sizes.argmax(), len(mask_HW)).astype(bool)
