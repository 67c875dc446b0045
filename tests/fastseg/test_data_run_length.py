from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastseg.data.run_length import decode_runs, unpack_runs

# Encoded by pycocotools 2.0: a box with a hole, one pixel in the far corner, a strip at the foot.
PACKED = "818000J4OL142MM0330000i0L[O"


def _known_mask() -> np.ndarray:
    mask = np.zeros((9, 13), bool)
    mask[2:7, 3:9] = True
    mask[4, 5] = False
    mask[0, 12] = True
    mask[8, :4] = True
    return mask


def _runs(mask: np.ndarray) -> list[int]:
    bits = np.concatenate(([0], mask.T.ravel().astype(int), [2]))
    edges = np.flatnonzero(np.diff(bits))
    return np.diff(np.concatenate(([0], edges))).tolist()


def _pack(runs: list[int]) -> str:
    """Pack run lengths as rleToString of maskApi.c does."""
    text = ""
    for index, run in enumerate(runs):
        value, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            code, value = value & 0x1F, value >> 5
            more = value != -1 if code & 0x10 else value != 0
            text += chr((code | 0x20 if more else code) + 48)
    return text


def test_a_string_packed_by_pycocotools_is_the_mask_it_was() -> None:
    assert (decode_runs(PACKED, 9, 13) == _known_mask()).all()
    assert _pack(unpack_runs(PACKED)) == PACKED


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_survives_plain_and_packed_runs(mask: np.ndarray) -> None:
    runs = _runs(mask)
    assert (decode_runs(runs, *mask.shape) == mask).all()
    assert (decode_runs(_pack(runs), *mask.shape) == mask).all()


@given(st.text(max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_any_text_is_a_mask_of_the_size_or_refused(text: str, height: int, width: int) -> None:
    try:
        mask = decode_runs(text, height, width)
    except ValueError:
        return
    assert mask.shape == (height, width)


@pytest.mark.parametrize("runs", [[3, 4], [-1, 10], [4.5, 4.5], [], "818", "8\x00"])
def test_runs_that_do_not_fill_the_picture_are_refused(runs: list[int] | str) -> None:
    with pytest.raises(ValueError, match="run length"):
        decode_runs(runs, 3, 3)
