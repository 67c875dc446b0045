"""Large frames in overlapping tiles, so that what is small in them is not shrunk away.

Where tiles overlap, the surest decides, whose confidence counts less and less towards its edge; the
whole frame where it is surer. Without a confidence, the tile decides whose edge is furthest.
"""

import operator
from typing import Iterator, List, Sequence, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.frame_runner import FrameRunner

OVERLAP = 0.25  # of a tile's side, with each neighbour
MAX_TILES = 64  # along a side: more is a mistake
FULL = 256  # weight of a confidence in a tile's middle; times 255 it fits 16 bits

Tiles = Union[int, Tuple[int, int]]


def grid_of(tiles: Tiles) -> Tuple[int, int]:
    """Return (columns, rows); ValueError if it is neither that nor one number for both."""
    pair = tuple(tiles) if isinstance(tiles, Sequence) else (tiles, tiles)
    try:
        columns, rows = (operator.index(count) for count in pair if not isinstance(count, bool))
    except (TypeError, ValueError):
        columns = rows = 0
    if not (1 <= columns <= MAX_TILES and 1 <= rows <= MAX_TILES):
        raise ValueError(
            f"tiles is {tiles!r}; expected (columns, rows) or one number, 1 to {MAX_TILES}"
        )
    return columns, rows


class TiledFrames:
    """Runs frames of one size, (height, width), in tiles, with buffers that are made once."""

    def __init__(self, frame_size: Tuple[int, int], tiles: Tiles) -> None:
        columns, rows = grid_of(tiles)
        self._tops, height = _places(frame_size[0], rows)
        self._lefts, width = _places(frame_size[1], columns)
        self._ids, self._sure = np.empty((2, height, width), np.uint8)
        self._weight = np.empty((height, width), np.uint16)
        self._better = np.empty((height, width), bool)
        self._down, self._across = _ramps(height, rows), _ramps(width, columns)
        self._tiled, self._tiled_sure, self._best = np.empty((3, *frame_size), np.uint8)
        self._best_weight = np.empty(frame_size, np.uint16)

    def run(self, runner: FrameRunner, frame_HW3: Array, out_HW: Array, swap: bool) -> Array:
        """Write ids, uint8; return how sure that is, uint8 (H, W), valid until the next call."""
        self._best_weight.fill(0)
        self._tiled_sure.fill(0)  # where no tile is sure at all, the whole frame's class stays
        for place, down_h, across_w in self._tiles():
            self._run_tile(runner, frame_HW3[place], swap)
            np.minimum(down_h[:, None], across_w, out=self._weight)
            self._weight *= self._sure
            best_weight = self._best_weight[place]
            np.greater(self._weight, best_weight, out=self._better)
            for best, own in (
                (best_weight, self._weight),
                (self._tiled[place], self._ids),
                (self._tiled_sure[place], self._sure),
            ):
                np.copyto(best, own, where=self._better)
        if runner.gives_confidence:
            runner.infer(frame_HW3, out_HW, swap, self._best)
            better = self._tiled_sure > self._best
            np.copyto(out_HW, self._tiled, where=better)
            np.copyto(self._best, self._tiled_sure, where=better)
        else:
            np.copyto(out_HW, self._tiled)
        return self._best

    def _run_tile(self, runner: FrameRunner, tile_hw3: Array, swap: bool) -> None:
        if runner.gives_confidence:
            runner.infer(tile_hw3, self._ids, swap, self._sure)
        else:
            runner.infer(tile_hw3, self._ids, swap)
            self._sure.fill(FULL - 1)

    def _tiles(self) -> Iterator[Tuple[Tuple[slice, slice], Array, Array]]:
        height, width = self._ids.shape
        for top, down_h in zip(self._tops, self._down):
            for left, across_w in zip(self._lefts, self._across):
                place = slice(top, top + height), slice(left, left + width)
                yield place, down_h, across_w


def _places(side: int, count: int) -> Tuple[List[int], int]:
    """Return where tiles of one size begin along a side, and that size."""
    size = min(side, max(1, round(side / (count - (count - 1) * OVERLAP))))
    while True:
        starts = [round(index * (side - size) / max(1, count - 1)) for index in range(count)]
        if all(after - before <= size for before, after in zip(starts, starts[1:])):
            return starts, size
        size += 1  # rounded down, tiles of a few pixels leave gaps


def _ramps(size: int, count: int) -> List[Array]:
    """Return the weights along each of some tiles, uint16: less towards a neighbour, 1 at least."""
    rising = np.clip(FULL * (np.arange(size) + 0.5) / (size * OVERLAP), 1, FULL).astype(np.uint16)
    ramps = [np.full(size, FULL, np.uint16) for _ in range(count)]
    for index, ramp in enumerate(ramps):
        if index > 0:
            np.minimum(ramp, rising, out=ramp)
        if index < count - 1:
            np.minimum(ramp, rising[::-1], out=ramp)
    return ramps
