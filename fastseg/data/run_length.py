"""COCO's run-length masks, plain or packed into a string.

Source: cocodataset/cocoapi, common/maskApi.c, functions rleDecode and rleFrString. Runs go down
the columns, the first run is of zeros. In a string each character holds 5 bits plus a flag that
more follow, offset by 48; from the fourth run on, it is the difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastseg.data.dataset import Array

_OFFSET, _BITS, _MORE, _SIGN = 48, 0x1F, 0x20, 0x10
_PLAIN_RUNS = 3  # these are stored as they are, the rest as differences


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> Array:
    """Return the mask of one object, (height, width) bool.

    Raises:
        ValueError: the runs are negative, unreadable, or do not fill the picture.
    """
    runs = unpack_runs(counts) if isinstance(counts, str) else list(counts)
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"run lengths have to be 0 or more and add up to {height} x {width}")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(bits.reshape(width, height).T)


def unpack_runs(text: str) -> list[int]:
    """Return the run lengths of a packed string.

    Raises:
        ValueError: a character outside the code, or a number that is cut off.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _OFFSET
        if not 0 <= code <= _BITS | _MORE:
            raise ValueError(f"character {character!r} is not in the code of run lengths")
        value |= (code & _BITS) << shift
        shift += 5
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) >= _PLAIN_RUNS else value)
        value = shift = 0
    if shift:
        raise ValueError("the last run length is cut off")
    return runs
