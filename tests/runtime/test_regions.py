"""Regions, polygons and run lengths of masks, against OpenCV and pycocotools."""

from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime.masks import coco_rle, polygons, regions
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastseg.data.coco import decode_runs

Array = np.ndarray[Any, Any]
small_maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)
)
# By pycocotools 2.0.11: a disk with a hole, on 97 rows and 131 columns.
DISK = (
    "l_2=`28I6K4L4M2M4M2N2N2N2N2N2N2N2O0O2N2O0O2O0O2O000O2O00000OhNXO:g0C_O:a0DC:=EE:;EG:9EI:7FI:7EK"
    ":5FK:5FK:5EM:3FM:3FM:4EL:5FK:5GI:7FI:8EH:9GE:;FE:<FB:?G_O:b0F\\O:e0HWO:j0HPO:R1i0101N2N2N2N2N2N2"
    "N2N3L3N3L4L5J7HV\\3"
)


@given(small_maps)
def test_regions_are_those_of_opencv(classes: Array) -> None:
    ours = {
        (r.class_id, r.area_px, tuple(r.box), *np.round(r.centroid, 9), r.mask_hw.tobytes())
        for r in regions(classes)
    }
    theirs = set()
    for class_id in np.unique(classes):
        mask = (classes == class_id).astype(np.uint8)
        count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for number in range(1, count):
            x, y, width, height, area = (int(value) for value in stats[number])
            inside = (labels == number)[y : y + height, x : x + width].tobytes()
            box = (x, y, x + width, y + height)
            centroid = np.round(centroids[number], 9)
            theirs.add((int(class_id), area, box, *centroid, inside))
    assert ours == theirs


def test_regions_come_largest_first_of_the_ids_that_are_wanted_and_never_of_ignored_pixels() -> (
    None
):
    classes = np.array([[0, 0, 1, 255], [0, 2, 1, 255], [2, 2, 2, 255]], np.uint8)
    assert [(r.class_id, r.area_px) for r in regions(classes)] == [(2, 4), (0, 3), (1, 2)]
    assert [r.class_id for r in regions(classes, min_area_px=3)] == [2, 0]
    assert [r.class_id for r in regions(classes, [1, 0], min_area_px=2)] == [0, 1]
    assert [r.area_px for r in regions(classes, 255)] == [3]
    assert regions(classes, 7) == [] == regions(classes, [])
    assert str(regions(classes, 1)[0]).endswith("right=3, bottom=2), centroid=(2.0, 0.5))")
    with pytest.raises(ValueError, match="class ids are 256"):
        regions(classes, 256)
    with pytest.raises(ValueError, match="class map, uint8"):
        regions(classes.astype(int))


@given(small_maps)
def test_run_lengths_are_read_back_as_the_mask_whole_or_region_by_region(classes: Array) -> None:
    rle: Any = coco_rle(classes == 1)
    assert rle["size"] == list(classes.shape)
    np.testing.assert_array_equal(decode_runs(rle["counts"], *classes.shape), classes == 1)
    whole = np.zeros(classes.shape, int)
    for region in regions(classes):
        part: Any = region.coco_rle
        whole += decode_runs(part["counts"], *part["size"]) * (region.class_id + 1)
    np.testing.assert_array_equal(whole, classes.astype(int) + 1)


def test_run_lengths_are_the_very_text_of_pycocotools() -> None:
    y, x = np.mgrid[:97, :131]
    disk = ((y - 40) ** 2 + (x - 60) ** 2 < 1200) & ((y - 35) ** 2 + (x - 66) ** 2 > 150)
    assert coco_rle(disk) == {"size": [97, 131], "counts": DISK}
    (region,) = regions(disk.astype(np.uint8), 1)
    assert region.coco_rle == coco_rle(disk)
    assert coco_rle(np.zeros((2, 3), bool))["counts"] == "6"
    assert coco_rle(np.ones((2, 3), bool))["counts"] == "06"
    with pytest.raises(ValueError, match=r"mask \(H, W\)"):
        coco_rle(np.zeros((1, 2, 3), bool))


def filled(shapes: Any, height: int, width: int) -> Array:
    """The pixels whose centres an odd number of outlines surround."""
    y, x = np.mgrid[:height, :width] + 0.5
    crossings = np.zeros((height, width), int)
    for polygon in shapes:
        for ring in (polygon.outer_V2, *polygon.holes_V2):
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if y0 != y1:
                    at = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                    crossings += (x < at) & ((y > y0) != (y > y1))
    return crossings % 2 == 1


@given(small_maps)
def test_exact_polygons_hold_the_very_pixels_one_polygon_a_region(classes: Array) -> None:
    mask = classes > 0
    found = polygons(mask, tolerance_px=0)
    np.testing.assert_array_equal(filled(found, *mask.shape), mask)
    apart = [filled([polygon], *mask.shape) for polygon in found]
    assert sorted(int(part.sum()) for part in apart) == sorted(
        r.area_px for r in regions(mask.astype(np.uint8), 1)
    )


def furthest(points: Array, ring: Array) -> float:
    """The distance to a closed line of the point that is furthest from it."""
    starts, ways = ring.astype(float), np.roll(ring, -1, axis=0) - ring.astype(float)
    to = points[:, None] - starts
    share = (to * ways).sum(axis=-1) / np.maximum((ways**2).sum(axis=-1), 1e-9)
    return float(np.hypot(*(to - np.clip(share, 0, 1)[..., None] * ways).T).min(axis=0).max())


def along(ring: Array) -> Array:
    """Points on a closed line, its corners among them."""
    share = np.linspace(0, 1, 20, endpoint=False)[:, None, None]
    points: Array = (ring + share * (np.roll(ring, -1, axis=0) - ring)).reshape(-1, 2)
    return points


@given(small_maps, st.sampled_from([0.3, 0.75, 1.0, 2.5, 40.0]))
def test_simplified_outlines_stay_within_the_tolerance_either_way(
    classes: Array, tolerance: float
) -> None:
    exact, simple = polygons(classes > 0, 0), polygons(classes > 0, tolerance)
    for one, other in zip(exact, simple, strict=True):
        for whole, fewer in zip(
            (one.outer_V2, *one.holes_V2), (other.outer_V2, *other.holes_V2), strict=True
        ):
            assert 3 <= len(fewer) <= len(whole)
            assert furthest(along(whole), fewer) <= tolerance + 1e-6
            assert len(fewer) == 3 or furthest(along(fewer), whole) <= tolerance + 1e-6


def test_a_ring_has_a_hole_the_outer_one_clockwise_and_the_hole_not() -> None:
    mask = np.ones((5, 6), bool)
    mask[2, 2:4] = False
    (polygon,) = polygons(mask, 0.5)
    assert polygon.outer_V2.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5]]
    assert [hole.tolist() for hole in polygon.holes_V2] == [[[2, 3], [4, 3], [4, 2], [2, 2]]]
    assert polygons(np.zeros((3, 4), bool)) == []
    with pytest.raises(ValueError, match=r"tolerance_px is -1; expected 0 \(exact\)"):
        polygons(mask, -1)
    with pytest.raises(ValueError, match="tolerance_px is nan"):
        polygons(mask, float("nan"))


def test_a_disk_needs_few_corners_at_a_tolerance_of_one_pixel() -> None:
    y, x = np.mgrid[:200, :200]
    disk = (y - 100) ** 2 + (x - 100) ** 2 < 90**2
    (polygon,) = polygons(disk, 1.0)
    assert len(polygon.outer_V2) < 45
    drawn = filled([polygon], 200, 200)
    assert (drawn & disk).sum() / (drawn | disk).sum() > 0.98
