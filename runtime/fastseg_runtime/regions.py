"""The connected regions of a mask, by run lengths and union-find, in numpy alone.

After He, Chao and Suzuki, "A Run-Based Two-Scan Labeling Algorithm" (2008); the unions are done
for all runs at once. Pixels that touch at a corner are connected, so that slanted poles and lane
lines stay whole (8-connectivity).
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array


@dataclass(frozen=True)
class _Runs:
    """The pixels of a mask as stretches of rows, in reading order.

    Positions are those in a flat copy of the mask that has an empty column on either side: a run
    never goes over the end of a row, and all runs of a row come before those of the next.
    """

    starts: Array  # (R,)
    stops: Array  # (R,), exclusive
    stride: int  # from a position to the one below it


def largest_region(mask_HW: Array) -> Array:
    """Return the connected region with the most pixels.

    Args:
        mask_HW: bool.

    Returns:
        bool (H, W); of equally large regions the one that comes first, by rows from the top; all
        False if the mask is empty.
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
