"""Connected regions of maps, their outlines, and masks as COCO's run lengths.

Regions after He, Chao and Suzuki, "A Run-Based Two-Scan Labeling Algorithm" (2008), with all unions
at once; 8-connected, so that slanted poles and lane lines stay whole. Outlines join their corners
by two: sorted by rows along horizontal edges, by columns along vertical ones.

Shape letters: R runs, V corners.
"""

from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array

_OFFSET, _BITS, _MORE = 48, 5, 0x20  # of a character of COCO's packed run lengths
_PLAIN_RUNS = 3  # of packed ones these are stored as they are, the rest as differences
# Of the four pixels around a corner, top left, top right, bottom left, bottom right, those in the
# mask as bits 1, 2, 4, 8. No edge turns at the others.
_TURNS = np.zeros(16, np.int8)
_TURNS[[1, 2, 4, 7, 8, 11, 13, 14]] = 1
_TURNS[[6, 9]] = 2
_FALLING, _BOTTOM_RIGHT = 9, 8


class Runs(NamedTuple):
    """The stretches of rows that have one value, in reading order; those of 0 are left out.

    Positions are those in a flat copy of the map that has an empty column on either side: a run
    never goes over the end of a row, and all runs of a row come before those of the next.
    """

    starts: Array  # (R,)
    stops: Array  # (R,), exclusive
    values: Array  # (R,)
    stride: int  # from a position to the one below it


def find_runs(map_HW: Array) -> Runs:
    """Return the runs of a mask, or of a map of numbers."""
    height, width = map_HW.shape
    padded = np.zeros((height, width + 2), map_HW.dtype)
    padded[:, 1:-1] = map_HW
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    values = flat[edges]
    filled = np.flatnonzero(values)  # where one begins, none of them the last edge
    return Runs(edges[filled], edges[filled + 1], values[filled], width + 2)


def regions_of(runs: Runs) -> Array:
    """Return for each run the first run of its connected region of one value, (R,)."""
    upper, lower = _touching_runs(runs)
    same = runs.values[upper] == runs.values[lower]
    return _join(len(runs.starts), upper[same], lower[same])


def paint(runs: Runs, numbers_R: Array, height: int) -> Array:
    """Return a map with a number for each run, int32 (height, W); 0 where none is."""
    steps = np.zeros(height * runs.stride, np.int32)
    steps[runs.starts] += numbers_R
    steps[runs.stops] -= numbers_R  # where the next run may begin
    painted = np.cumsum(steps, dtype=np.int32).reshape(height, runs.stride)
    map_HW: Array = np.ascontiguousarray(painted[:, 1:-1])
    return map_HW


def _touching_runs(runs: Runs) -> Tuple[Array, Array]:
    """Return the pairs of runs that touch each other, as two arrays: the upper, the lower."""
    # Below a run [start, stop) lie those that stop at its start or later, and begin at its stop
    # or earlier: "at" are the corners.
    first = np.searchsorted(runs.stops, runs.starts + runs.stride, side="left")
    last = np.searchsorted(runs.starts, runs.stops + runs.stride, side="right")
    count = last - first
    upper = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, first[upper] + rank


def _join(count: int, upper: Array, lower: Array) -> Array:
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


def coco_runs(mask_hw: Array, top: int, left: int, size: Tuple[int, int]) -> Dict[str, object]:
    """Return COCO's packed run lengths of a mask at (top, left) of a picture.

    Down the columns, zeros first. A character holds 5 bits and a flag that more follow; from the
    fourth run on, it is the difference to the run two before (cocoapi, maskApi.c, rleToString).
    """
    runs, height = find_runs(mask_hw.T), size[0]
    column, row = np.divmod(runs.starts, runs.stride)
    starts = (column + left) * height + row - 1 + top  # less the empty one before each column
    edges = np.stack([starts, starts + runs.stops - runs.starts], axis=1).ravel()
    joined = np.flatnonzero(edges[1:] == edges[:-1])  # over the end of a column
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    total = height * size[1]
    end = [] if total in edges[-1:] else [total]
    bounds = np.concatenate([[0], edges, end]).astype(np.int64)
    return {"size": [height, size[1]], "counts": _pack(np.diff(bounds))}


def _pack(counts: Array) -> str:
    numbers = counts.copy()
    numbers[_PLAIN_RUNS:] -= counts[_PLAIN_RUNS - 2 : -2]
    text = bytearray()
    for number in numbers.tolist():
        while not -16 <= number < 16:
            text.append((number & 31 | _MORE) + _OFFSET)
            number >>= _BITS
        text.append((number & 31) + _OFFSET)
    return text.decode()


def rings(mask_HW: Array) -> Iterator[Tuple[Array, bool]]:
    """Yield the exact outlines, int32 (V, 2) x and y, from the first corner by rows, clockwise.

    With each comes whether it is that of a hole.
    """
    padded = np.zeros((mask_HW.shape[0] + 2, mask_HW.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = mask_HW
    code = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    rows, columns = np.nonzero(_TURNS[code])
    codes = code[rows, columns]
    turns = _TURNS[codes]
    y, x, codes = (np.repeat(values, turns) for values in (rows, columns, codes))
    second = np.arange(len(x)) - np.repeat(np.cumsum(turns) - turns, turns)
    # The first of two has the edge to the left: with pixels falling from left to right, also the
    # edge down.
    lower = np.where((turns == 2).repeat(turns), (codes == _FALLING) ^ second, 0)
    by_column = np.lexsort((lower, y, x))
    above_below = np.empty(len(x), np.intp)
    above_below[by_column[::2]], above_below[by_column[1::2]] = by_column[1::2], by_column[::2]
    corners_V2, vertical = np.stack([x, y], axis=1).astype(np.int32), above_below.tolist()
    seen = bytearray(len(vertical))
    for first in range(len(vertical)):
        if seen[first]:
            continue
        ring, corner = [], first
        while not seen[corner]:
            beside = corner ^ 1
            seen[corner] = seen[beside] = 1
            ring += [corner, beside]
            corner = vertical[beside]
        yield corners_V2[ring], not codes[first] & _BOTTOM_RIGHT


def simplify(ring_V2: Array, tolerance_px: float) -> Array:
    """Return a ring with fewer corners, three at least, after Douglas and Peucker (1973)."""
    if not tolerance_px or len(ring_V2) < 4:
        return ring_V2
    closed = np.concatenate([ring_V2, ring_V2[:1]]).astype(np.float64)
    opposite = int(np.square(closed - closed[0]).sum(axis=1).argmax())
    kept = {0, opposite}
    waiting: List[Tuple[int, int]] = [(0, opposite), (opposite, len(ring_V2))]
    while waiting:
        start, stop = waiting.pop()
        distances = _distances(closed[start + 1 : stop], closed[start], closed[stop])
        if not len(distances):
            continue
        furthest = start + 1 + int(distances.argmax())
        # A ring thinner than the tolerance would be a line: the last part keeps a corner.
        if distances.max() > tolerance_px or (not waiting and len(kept) == 2):
            kept.add(furthest)
            waiting += [(start, furthest), (furthest, stop)]
    simple_V2: Array = ring_V2[sorted(kept)]
    return simple_V2


def _distances(points_V2: Array, start: Array, stop: Array) -> Array:
    """Return how far points are from the segment between two others."""
    along = stop - start
    length2 = float(along @ along)
    share = np.clip((points_V2 - start) @ along / (length2 or 1), 0, 1)
    distances: Array = np.hypot(*(points_V2 - start - share[:, None] * along).T)
    return distances
