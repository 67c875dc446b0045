"""Masks against the plain definitions, written with loops."""

from time import process_time
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.masks import (
    Box,
    bounding_box,
    class_mask,
    class_shares,
    drivable_area,
    lane_mask,
    largest_region,
    soft_mask,
    unsure,
    with_unsure,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = np.ndarray[Any, Any]
small_maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2)
)


def drawn(*rows: str) -> Array:
    """A class map of digits."""
    return np.array([[int(digit) for digit in row] for row in rows], np.uint8)


def regions_by_flooding(mask_HW: Array) -> list[Array]:
    """All regions, by filling each from its first pixel."""
    left, found = mask_HW.copy(), []
    while left.any():
        region, todo = np.zeros_like(mask_HW), [tuple(np.argwhere(left)[0])]
        while todo:
            y, x = todo.pop()
            if 0 <= y < left.shape[0] and 0 <= x < left.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found.append(region)
    return found


@given(small_maps)
def test_the_largest_region_is_that_of_a_flood_fill(classes: Array) -> None:
    found = regions_by_flooding(classes == 1)
    expected = max(found, key=lambda region: int(region.sum()), default=classes != classes)
    result = largest_region(classes, 1)
    assert result.dtype == bool
    np.testing.assert_array_equal(result, expected)


def test_a_spiral_a_comb_and_a_chessboard_are_one_region_each() -> None:
    spiral = drawn("1111111", "0000001", "1111101", "1000101", "1011101", "1000001", "1111111")
    comb = np.zeros((40, 41), np.uint8)
    comb[:, ::2] = comb[-1] = 1
    chessboard = (np.indices((9, 9)).sum(axis=0) % 2).astype(np.uint8)
    for shape in (spiral, comb, comb[::-1], comb.T, chessboard):
        np.testing.assert_array_equal(largest_region(shape, 1), shape == 1)


def test_a_region_does_not_go_round_the_edge_of_the_picture() -> None:
    classes = drawn("0001", "1000", "1000")
    np.testing.assert_array_equal(largest_region(classes, 1), drawn("0000", "1000", "1000") == 1)


def test_a_class_that_does_not_occur_has_an_empty_region_and_no_box() -> None:
    empty = largest_region(np.zeros((3, 4), np.uint8), 7)
    assert empty.shape == (3, 4) and not empty.any()
    assert bounding_box(empty) is None
    assert drivable_area(np.zeros((3, 4), np.uint8), 7) is None
    assert lane_mask(np.zeros((3, 4), np.uint8), [7, 8]) is None


def cpu_time_s(classes: Array) -> float:
    start = process_time()
    largest_region(classes, 3)
    return process_time() - start


def test_a_street_at_1024x512_takes_less_than_50_ms_of_cpu_time() -> None:
    y, x = np.indices((512, 1024))
    street = ((y // 37 + x // 53 + (x * y) // 4001) % 11).astype(np.uint8)
    assert min(cpu_time_s(street) for _ in range(3)) < 0.05


@given(small_maps)
def test_shares_are_counts_over_all_pixels(classes: Array) -> None:
    shares = class_shares(classes, 2)
    assert shares.shape == (2,)
    assert shares.tolist() == [float((classes == index).sum() / classes.size) for index in (0, 1)]


@given(small_maps)
def test_a_box_is_the_smallest_that_holds_the_mask(classes: Array) -> None:
    box = bounding_box(classes == 2)
    if box is None:
        assert not (classes == 2).any()
        return
    inside = classes[box.top : box.bottom, box.left : box.right] == 2
    assert inside.sum() == (classes == 2).sum()
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@given(small_maps, st.integers(1, 25))
def test_a_soft_mask_is_the_mean_of_a_window(classes: Array, width_px: int) -> None:
    radius = width_px // 2
    alpha = soft_mask(classes, [1, 2], width_px)
    assert alpha.dtype == np.uint8
    for (y, x), value in np.ndenumerate(alpha):
        rows, columns = slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), None)
        window = classes[rows, columns][:, : x - max(x - radius, 0) + radius + 1]
        assert abs(float(value) - 255 * (window > 0).mean()) <= 0.5 + 1e-9


def test_a_soft_edge_is_a_ramp_and_width_1_is_hard() -> None:
    classes = np.zeros((3, 12), np.uint8)
    classes[:, 6:] = 1
    assert soft_mask(classes, 1, 1)[1].tolist() == [0] * 6 + [255] * 6
    assert soft_mask(classes, 1, 5)[1].tolist() == [0] * 4 + [51, 102, 153, 204] + [255] * 4
    np.testing.assert_array_equal(soft_mask(classes, 1, 4), soft_mask(classes, 1, 5))


def test_the_widest_edge_on_a_large_opaque_map_does_not_overflow() -> None:
    assert (soft_mask(np.ones((1002, 9000), np.uint8), 1, 1000) == 255).all()


def test_a_drivable_area_ends_in_its_widest_gapless_stretch() -> None:
    classes = drawn("1000000", "0111110", "0101110", "0000000")
    area = drivable_area(classes, [1])
    assert area is not None
    assert area[1:] == (2, 3, 6)
    np.testing.assert_array_equal(area.mask_HW, classes == 1)  # joined at the corner
    assert drivable_area(drawn("12", "30"), (1, 2))[1:] == (0, 0, 2)  # type: ignore[index]


def test_a_lane_mask_keeps_dashes_and_spans_both_lines() -> None:
    classes = drawn("0010100", "0000000", "0100010", "1000001", "0000000")
    lanes = lane_mask(classes, 1)
    assert lanes is not None
    assert lanes[1:] == (3, 0, 7)
    np.testing.assert_array_equal(lanes.mask_HW, classes == 1)


@given(small_maps)
def test_the_span_of_a_drivable_area_is_filled_and_ends_at_its_edges(classes: Array) -> None:
    area = drivable_area(classes, [1, 2])
    if area is None:
        return
    line = np.pad(area.mask_HW[area.row], 1)
    assert line[area.left + 1 : area.right + 1].all()
    assert not line[area.left] and not line[area.right + 1]
    assert not area.mask_HW[area.row + 1 :].any()


def test_a_box_is_in_the_order_left_top_right_bottom() -> None:
    assert bounding_box(drawn("0000", "0011", "0000") == 1) == Box(2, 1, 4, 2)


@pytest.mark.parametrize(
    "other", [np.zeros((2, 3), np.int64), np.zeros((1, 2, 3), np.uint8), np.zeros((0, 3), np.uint8)]
)
def test_other_arrays_are_refused_and_the_message_says_what_to_give(other: Array) -> None:
    with pytest.raises(ValueError, match=r"class map, uint8 \(H, W\), got .*infer\(\)"):
        class_shares(other, 3)
    with pytest.raises(ValueError, match="class map"):
        largest_region(other, 1)


def test_ids_and_widths_outside_their_range_are_refused() -> None:
    classes = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="class ids are 256"):
        class_mask(classes, 256)
    with pytest.raises(ValueError, match="class ids are .*-1"):
        class_mask(classes, [0, -1])
    with pytest.raises(ValueError, match="width_px is 0"):
        soft_mask(classes, 0, 0)
    with pytest.raises(ValueError, match=r"mask \(H, W\)"):
        bounding_box(np.zeros(3, bool))


@pytest.mark.parametrize(
    "none",
    [[True, False], True, [True, 2], {2, True}, (1, np.True_), 1.9, "1", ["1"], None, float("nan"),
     2**70],
)  # fmt: skip
def test_what_is_no_id_is_refused(none: Any) -> None:
    classes = np.zeros((2, 2), np.uint8)
    for take in (class_mask, drivable_area, lane_mask, largest_region):
        with pytest.raises(ValueError, match="class ids are .*; expected whole numbers, 0 to 255"):
            take(classes, none)
    with pytest.raises(ValueError, match="class ids are"):
        with_unsure(classes, classes, 0.5, unsure_id=none)


@pytest.mark.parametrize(
    "ids",
    [{1, 2}, frozenset((1, 2)), {1: "a", 2: "b"}.keys(), (1, 2), range(1, 3), np.array([1, 2]),
     np.array([[1], [2]], np.uint8), [1.0, 2.0], [np.int64(1), 2],
     np.array([1, 2], object), [np.array(1), 2]],
)  # fmt: skip
def test_ids_come_as_any_collection_of_whole_numbers(ids: Any) -> None:
    assert class_mask(drawn("0123"), ids).tolist() == [[False, True, True, False]]


def test_lists_in_place_of_arrays_and_widths_of_half_a_pixel_are_refused() -> None:
    rows: Any = [[0, 1], [1, 1]]
    for take in (class_shares, class_mask):
        with pytest.raises(ValueError, match=r"class map, uint8 \(H, W\), got list; give what"):
            take(rows, 1)
    with pytest.raises(ValueError, match=r"mask \(H, W\), a numpy array, got list"):
        bounding_box(rows)
    with pytest.raises(ValueError, match=r"confidence, uint8 \(H, W\), got list"):
        unsure(rows, 0.5)
    for width_px in (9.5, "9", None):
        with pytest.raises(ValueError, match="width_px is .*; expected 1 .* a whole number"):
            soft_mask(drawn("01"), 1, width_px)  # type: ignore[arg-type]
    assert soft_mask(drawn("01"), 1, np.int64(1)).tolist() == [[0, 255]]  # type: ignore[arg-type]


def test_a_confidence_of_another_frame_is_refused() -> None:
    classes = np.zeros((3, 4), np.uint8)
    for other in (np.zeros((2, 4), np.uint8), np.zeros((6, 8), np.uint8), [[0]]):
        with pytest.raises(ValueError, match=r"confidence of the class map's \(3, 4\), got"):
            with_unsure(classes, other, 0.5)  # type: ignore[arg-type]


def test_unsure_pixels_are_marked_in_ids_of_any_type() -> None:
    classes, confidence = np.array([[1, 2]], np.int64), np.array([[0, 255]], np.uint8)
    marked = with_unsure(classes, confidence, 0.5)
    assert (marked.tolist(), marked.dtype) == ([[255, 2]], np.int64)
    with pytest.raises(ValueError, match=r"class map, uint8 \(H, W\), got int64"):
        with_unsure(classes, confidence, [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"class map, uint8 \(H, W\), got list"):
        with_unsure([[1, 2]], confidence, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("several", [[1, 2], (), {1, 2}, np.array([1, 2])])
def test_unsure_pixels_are_of_one_class(several: Any) -> None:
    classes = np.zeros((1, 2), np.uint8)
    with pytest.raises(ValueError, match="unsure_id is .*; expected one id"):
        with_unsure(classes, classes, 0.5, unsure_id=several)


def test_a_mask_of_no_class_is_empty() -> None:
    nothing: list[Any] = [[], (), set(), *(np.zeros(0, kind) for kind in (int, bool, object))]
    for none in nothing:
        assert not class_mask(np.zeros((2, 2), np.uint8), none).any()


def test_unsure_pixels_are_those_below_a_probability_of_all_classes_or_of_each() -> None:
    confidence = np.array([[0, 127, 128, 254, 255]], np.uint8)
    classes = np.array([[0, 1, 0, 1, 255]], np.uint8)
    assert unsure(confidence, 0.5).tolist() == [[True, True, False, False, False]]
    assert not unsure(confidence, 0).any()
    assert unsure(confidence, 1).tolist() == [[True, True, True, True, False]]
    each = unsure(confidence, [0.1, 1.0], classes)
    assert each.tolist() == [[True, True, False, True, True]]  # the ignored one always
    assert with_unsure(classes, confidence, 0.5).tolist() == [[255, 255, 0, 1, 255]]
    assert with_unsure(classes, confidence, [0.1, 1.0], unsure_id=2).tolist() == [[2, 2, 0, 2, 2]]
    assert classes.tolist() == [[0, 1, 0, 1, 255]]


def test_thresholds_that_make_no_sense_are_refused() -> None:
    confidence, classes = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    for below in (-0.01, 1.01, float("nan"), [0.5, 2.0], [[0.5]]):
        with pytest.raises(ValueError, match="below is .*; expected 0 to 1"):
            unsure(confidence, below, classes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the class map"):
        unsure(confidence, [0.5, 0.5])
    with pytest.raises(ValueError, match="needs the class map"):
        unsure(confidence, [0.5], classes[:1])
    with pytest.raises(ValueError, match=r"confidence, uint8 \(H, W\), got float64"):
        unsure(confidence / 255, 0.5)
    with pytest.raises(ValueError, match="class ids are 256"):
        with_unsure(classes, confidence, 0.5, unsure_id=256)
