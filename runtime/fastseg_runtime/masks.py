"""What apps make of a class map: shares, regions, boxes, soft masks, the way ahead. numpy alone.

docs/masks.md has a picture of each. Shape letters: H and W pixels, K classes.
"""

from typing import NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array

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


def class_mask(classes_HW: Array, ids: Union[int, Sequence[int]]) -> Array:
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
    wanted = np.atleast_1d(np.asarray(ids, dtype=np.int64))
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < _IDS:
        raise ValueError(f"class ids are {ids}; expected 0 to {_IDS - 1}")
    chosen = np.zeros(_IDS, bool)
    chosen[wanted] = True
    mask_HW: Array = chosen[classes_HW]
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


def bounding_box(mask_HW: Array) -> Optional[Box]:
    """Return the smallest box that holds a mask, or None if the mask is empty.

    Args:
        mask_HW: bool, or numbers that are 0 outside.

    Raises:
        ValueError: an array that is not (H, W).
    """
    if mask_HW.ndim != 2:
        raise ValueError(f"expected a mask (H, W), got {mask_HW.dtype} {mask_HW.shape}")
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def soft_mask(classes_HW: Array, ids: Union[int, Sequence[int]], width_px: int) -> Array:
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
    if not 1 <= width_px <= _MAX_EDGE_PX:
        raise ValueError(f"width_px is {width_px}; expected 1 (hard) to {_MAX_EDGE_PX}")
    alpha_HW = class_mask(classes_HW, ids) * np.uint8(OPAQUE)
    radius = width_px // 2
    sums_HW = _window_sums(_window_sums(alpha_HW, radius).T, radius).T
    height, width = classes_HW.shape
    pixels_HW = _window_lengths(height, radius)[:, None] * _window_lengths(width, radius)
    soft_HW: Array = ((sums_HW + pixels_HW // 2) // pixels_HW).astype(np.uint8)
    return soft_HW


def drivable_area(classes_HW: Array, ids: Union[int, Sequence[int]]) -> Optional[Ground]:
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


def lane_mask(classes_HW: Array, ids: Union[int, Sequence[int]]) -> Optional[Ground]:
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


def _check_class_map(classes_HW: Array) -> None:
    if classes_HW.dtype != np.uint8 or classes_HW.ndim != 2 or not classes_HW.size:
        raise ValueError(
            f"expected a class map, uint8 (H, W), got {classes_HW.dtype} {classes_HW.shape}; "
            "give what infer() returns for one frame"
        )


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


class _Runs(NamedTuple):
    """The pixels of a mask as stretches of rows, in reading order.

    Positions are those in a flat copy of the mask that has an empty column on either side: a run
    never goes over the end of a row, and all runs of a row come before those of the next.
    """

    starts: Array  # (R,)
    stops: Array  # (R,), exclusive
    stride: int  # from a position to the one below it


def _largest_region(mask_HW: Array) -> Array:
    """Return the connected region with the most pixels; all False if the mask is empty.

    By run lengths and union-find, after He, Chao and Suzuki, "A Run-Based Two-Scan Labeling
    Algorithm" (2008); the unions are done for all runs at once. Pixels that touch at a corner are
    connected, so that slanted poles and lane lines stay whole (8-connectivity).
    """
    runs = _find_runs(mask_HW)
    if not len(runs.starts):
        return np.zeros(mask_HW.shape, bool)
    region_R = _regions(len(runs.starts), *_touching_runs(runs))
    sizes = np.bincount(region_R, weights=runs.stops - runs.starts)
    return _paint(runs, region_R == sizes.argmax(), mask_HW.shape[0])


def _find_runs(mask_HW: Array) -> _Runs:
    height, width = mask_HW.shape
    padded = np.zeros((height, width + 2), bool)
    padded[:, 1:-1] = mask_HW
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return _Runs(edges[::2], edges[1::2], width + 2)


def _touching_runs(runs: _Runs) -> Tuple[Array, Array]:
    """Return the pairs of runs that touch each other, as two arrays: the upper, the lower."""
    # Below a run [start, stop) lie those that stop at its start or later, and begin at its stop
    # or earlier: "at" are the corners.
    first = np.searchsorted(runs.stops, runs.starts + runs.stride, side="left")
    last = np.searchsorted(runs.starts, runs.stops + runs.stride, side="right")
    count = last - first
    upper = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, first[upper] + rank


def _regions(count: int, upper: Array, lower: Array) -> Array:
    """Return for each of `count` runs the first run of its region."""
    parent = np.arange(count)
    while len(upper):
        # Each tree goes below the smallest of its neighbours that are smaller than itself.
        np.minimum.at(parent, np.maximum(upper, lower), np.minimum(upper, lower))
        while True:
            grandparent = parent[parent]
            if np.array_equal(grandparent, parent):
                break
            parent = grandparent
        upper, lower = parent[upper], parent[lower]
        apart = upper != lower
        upper, lower = upper[apart], lower[apart]
    return parent


def _paint(runs: _Runs, chosen_R: Array, height: int) -> Array:
    steps = np.zeros(height * runs.stride, np.int8)
    steps[runs.starts[chosen_R]] = 1
    steps[runs.stops[chosen_R]] = -1
    padded = np.cumsum(steps, dtype=np.int8).view(bool).reshape(height, runs.stride)
    mask_HW: Array = np.ascontiguousarray(padded[:, 1:-1])
    return mask_HW
