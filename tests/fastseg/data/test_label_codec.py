from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastseg.data import UnknownLabelError
from fastseg.data.label_codec import LabelCodec

CODEC = LabelCodec({0: 0, 4: 1, 11: 255}, {(0, 0, 0): 255, (128, 64, 128): 0, (0, 0, 192): 1})


def test_stored_values_become_class_ids() -> None:
    label = CODEC.decode(np.array([[0, 4], [11, 0]], np.uint8), "a.png")
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 1], [255, 0]]


def test_colours_become_class_ids() -> None:
    label = CODEC.decode(np.array([[(128, 64, 128), (0, 0, 192), (0, 0, 0)]], np.uint8), "a.png")
    assert label.tolist() == [[0, 1, 255]]


def test_unknown_values_are_counted_and_named_with_the_file() -> None:
    with pytest.raises(UnknownLabelError, match=r"a\.png: .*7 \(2 px\).*expected 0 or 4") as error:
        CODEC.decode(np.array([[0, 7], [7, 9]], np.uint8), "a.png")
    assert error.value.pixels == {"7": 2, "9": 1}


def test_ids_of_16_bits_are_to_be_renumbered_and_divided_only_if_widened() -> None:
    with pytest.raises(UnknownLabelError, match="divide them by 257, and save it with 8 bits"):
        CODEC.decode(np.array([[0, 257, 514]], np.uint16), "a.png")
    with pytest.raises(UnknownLabelError, match="renumber them to 0 to 254, and save it with 8"):
        CODEC.decode(np.array([[0, 257, 1000]], np.uint16), "a.png")


def test_unknown_colours_are_counted_and_named() -> None:
    mask = np.array([[(1, 2, 3), (0, 0, 192)]], np.uint8)
    with pytest.raises(UnknownLabelError, match=r"colour \[1, 2, 3\] \(1 px\)"):
        CODEC.decode(mask, "a.png")


def test_class_ids_in_three_channels_get_a_hint() -> None:
    with pytest.raises(UnknownLabelError, match="save the label with one channel"):
        CODEC.decode(np.array([[(1, 1, 1), (0, 0, 0), (4, 4, 4)]], np.uint8), "a.png")


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1), st.integers(0, 999))
def test_decoding_is_a_look_up_in_the_table(ids: dict[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).choice(sorted(ids), (5, 7)).astype(np.uint8)
    label = LabelCodec(ids, {}).decode(values, "a.png")
    assert label.tolist() == [[ids[value] for value in row] for row in values.tolist()]
