"""Palettes for a layer's weights: k-means in one dimension.

Weights on a line are clustered by their order: a cluster is a stretch of the sorted weights, and
its mean a difference of running sums. A step of Lloyd's algorithm (1982) is then one binary
search per colour, exact and the same on every machine, where the general algorithm of
scikit-learn, which coremltools would take, is fifty times slower and ends in other palettes with
other numbers of threads.
"""

import numpy as np
from fastseg_runtime.arrays.metrics import Array

MAX_STEPS = 100  # 5,000 or 200,000 normal weights fit no better after 1000


def palettize(weights: Array, bits: int) -> tuple[Array, Array]:
    """Return the palette that fits a layer's weights, and their indices into it.

    Args:
        weights: of any shape and float type.
        bits: of an index.

    Returns:
        The palette, (2**bits,) in the type of the weights, ascending and filled up with its last
        value; the indices, uint8, flat.
    """
    values, value_of, counts = np.unique(weights, return_inverse=True, return_counts=True)
    size = 1 << bits
    if len(values) <= size:
        palette, indices = values, np.arange(len(values))
    else:
        palette, indices = _cluster(values.astype(np.float64), counts, size)
    filled = np.pad(palette, (0, size - len(palette)), mode="edge").astype(weights.dtype)
    return filled, indices[value_of.reshape(-1)].astype(np.uint8)


def _cluster(values: Array, counts: Array, size: int) -> tuple[Array, Array]:
    """Return the means of `size` clusters at most, and the cluster of each sorted value."""
    numbers = np.append(0, np.cumsum(counts))
    sums = np.append(0, np.cumsum(counts * values))

    def means_of(starts: Array) -> Array:
        bounds = np.append(starts, len(values))
        means: Array = np.diff(sums[bounds]) / np.diff(numbers[bounds])
        return means

    starts = _first_starts(values, counts, size)
    for _ in range(MAX_STEPS):
        means = means_of(starts)
        # A value belongs to the nearest mean; a cluster that none is nearest to goes away.
        nearest = np.searchsorted(values, (means[1:] + means[:-1]) / 2)
        before, starts = starts, np.unique(np.append(0, nearest))
        if np.array_equal(before, starts):
            break
    clusters = np.searchsorted(starts, np.arange(len(values)), side="right") - 1
    return means_of(starts), clusters


def _first_starts(values: Array, counts: Array, size: int) -> Array:
    """Return where clusters begin, as dense as the cube root of the weights' density.

    That is where the best quantizer has them when there are many (Panter & Dite 1951).
    """
    widths = np.gradient(values)
    room = np.cumsum(np.cbrt(counts / widths) * widths)
    return np.unique(np.append(0, np.searchsorted(room, np.arange(1, size) * room[-1] / size)))
