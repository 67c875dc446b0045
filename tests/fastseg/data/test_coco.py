from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fastseg.data import DataError, MissingSplitError, check_dataset, open_dataset
from fastseg.data.coco import decode_runs, unpack_runs

Writer = Callable[..., Path]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "person"}]  # person 1, dog 2
BIG_BOX = [[2, 2, 22, 2, 22, 14, 2, 14]]
SMALL_BOX = [[8, 6, 12, 6, 12, 10, 8, 10]]
# Encoded by pycocotools 2.0: a box with a hole, one pixel in the far corner, a strip at the foot.
PACKED = "818000J4OL142MM0330000i0L[O"


def _object(category: int, segmentation: Any, area: float = 1, **more: Any) -> dict[str, Any]:
    entry = {"id": 5, "image_id": 1, "category_id": category, "area": area}
    return entry | {"segmentation": segmentation, "iscrowd": 0} | more


@pytest.fixture
def write_coco(tmp_path: Path, write_picture: Writer, picture: np.ndarray) -> Writer:
    def write(objects: list[dict[str, Any]], **more: Any) -> Path:
        write_picture(tmp_path / "train2017" / "000001.png", picture)
        table = {
            "images": [{"id": 1, "file_name": "000001.png", "width": 24, "height": 16}],
            "categories": CATEGORIES,
            "annotations": objects,
        }
        path = tmp_path / "annotations" / "instances_train2017.json"
        path.parent.mkdir()
        path.write_text(json.dumps(table | more))
        return tmp_path

    return write


def test_polygons_become_classes_and_the_rest_background(write_coco: Writer) -> None:
    dataset = open_dataset(f"coco:{write_coco([_object(7, BIG_BOX)])}", "train")
    assert [info.name for info in dataset.classes] == ["background", "person", "dog"]
    sample = dataset[0]
    assert sample.name == "000001"
    assert (sample.label_HW[3:13, 3:21] == 2).all()
    assert (sample.label_HW[:1] == 0).all()
    assert (sample.label_HW[:, :1] == 0).all()
    assert set(np.unique(sample.label_HW)) == {0, 2}


def test_smaller_objects_lie_on_top_whatever_their_order(write_coco: Writer) -> None:
    objects = [_object(2, SMALL_BOX, area=16), _object(7, BIG_BOX, area=240)]
    label = open_dataset(f"coco:{write_coco(objects)}", "train")[0].label_HW
    assert label[8, 10] == 1
    assert label[4, 4] == 2


@pytest.mark.parametrize("area", [{}, {"area": None}, {"area": 0}])
def test_objects_whose_area_nobody_says_are_ordered_by_their_boxes(
    area: dict[str, Any], write_coco: Writer
) -> None:
    objects = [_object(2, SMALL_BOX, bbox=[8, 6, 4, 4]), _object(7, BIG_BOX, bbox=[2, 2, 20, 12])]
    for entry in objects:
        del entry["area"]
    root = write_coco([entry | area for entry in objects])
    label = open_dataset(f"coco:{root}", "train")[0].label_HW
    assert label[8, 10] == 1 and label[4, 4] == 2


def test_run_lengths_and_crowds_become_classes(write_coco: Writer) -> None:
    mask = {"size": [16, 24], "counts": [16 * 4, 16 * 3, 16 * 17]}
    root = write_coco([_object(2, mask, iscrowd=1)])
    label = open_dataset(f"coco:{root}", "train")[0].label_HW
    assert (label[:, 4:7] == 1).all()
    assert (label == 1).sum() == 16 * 3


def test_an_image_without_objects_is_background(write_coco: Writer) -> None:
    assert not open_dataset(f"coco:{write_coco([])}", "train")[0].label_HW.any()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_object(99, BIG_BOX), r"99.* expected a listed category_id"),
        (_object(2, [[1, 1, 2, 2]]), "polygon of 2 corners"),
        (_object(2, [[1, 1, 2]]), "000001"),
        (_object(2, {"size": [4, 4], "counts": [16]}), "run lengths of size"),
        (_object(2, {"size": [16, 24], "counts": [1, 2]}), "add up to"),
        (_object(2, {"size": [16, 24], "counts": "\t"}), "not in the code"),
        (_object(2, None), "in its fields"),
        (_object(2, [], bbox=[1, 1, 9, 9]), "no outline, a box at most"),
        (_object(2, [[30, 1, 40, 1, 40, 9]]), r"outside of the picture of 24x16, at \(30, 1\)"),
        (_object(2, [[1, -9, 4, -9, 4, -1.7]]), "outside of the picture"),
    ],
)
def test_annotations_that_make_no_sense_are_refused_by_number(
    write_coco: Writer, entry: dict[str, Any], message: str
) -> None:
    dataset = open_dataset(f"coco:{write_coco([entry])}", "train")
    with pytest.raises(DataError, match=rf"instances_train2017\.json: annotation 5.*{message}"):
        dataset[0]


@pytest.mark.parametrize(
    "corners", [[-0.4, 1, -0.4, 9, -0.1, 9], [26.4, 2, 28, 2, 28, 9], [1, -9, 4, -9, 4, -1.5]]
)
def test_what_cutting_left_within_a_tenth_of_the_picture_beyond_an_edge_draws_nothing(
    write_coco: Writer, corners: list[float]
) -> None:
    root = write_coco([_object(2, [corners])])
    assert not open_dataset(f"coco:{root}", "train")[0].label_HW[:, 1:].any()


def test_a_part_of_an_object_may_lie_outside(write_coco: Writer) -> None:
    root = write_coco([_object(2, [[30, 1, 40, 1, 40, 9], [20, 2, 30, 2, 30, 8, 20, 8]])])
    assert (open_dataset(f"coco:{root}", "train")[0].label_HW == 1).sum() > 20


def test_polygons_as_fractions_are_refused_though_a_corner_is_a_hair_outside(
    write_coco: Writer,
) -> None:
    fractions = [
        _object(2, [[0.1, 0.1, 0.9, 0.1, 1.0003, 1]]),
        _object(7, [[-0.0002, 0, 0.5, 0, 0.5, 1]]),
    ]
    root = write_coco(fractions)
    with pytest.raises(DataError, match=r"2017\.json: the corners of all 2 outlines lie within 0"):
        open_dataset(f"coco:{root}", "train")


def test_a_picture_of_tiny_objects_alone_is_read_where_others_have_larger_ones(
    write_coco: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    images = [{"id": number, "file_name": f"00000{number}.png"} for number in (1, 2)]
    dots = [_object(2, [[0, 0, 1, 0, 1, 1]])] * 2
    root = write_coco([*dots, _object(7, BIG_BOX, image_id=2)], images=images)
    write_picture(root / "train2017" / "000002.png", picture)
    assert open_dataset(f"coco:{root}", "train")[0].label_HW[0, 0] == 1


def test_a_tiny_object_beside_others_is_no_fraction(write_coco: Writer) -> None:
    root = write_coco([_object(2, [[0, 0, 1, 0, 1, 1]]), _object(7, BIG_BOX, area=240)])
    assert open_dataset(f"coco:{root}", "train")[0].label_HW[0, 0] == 1


def test_an_image_of_another_size_than_annotated_is_refused(
    write_coco: Writer, write_picture: Writer
) -> None:
    root = write_coco([])
    write_picture(root / "train2017" / "000001.png", np.zeros((9, 24, 3), np.uint8))
    with pytest.raises(DataError, match=r"000001\.png: image is 24x9.*\(24, 16\)"):
        open_dataset(f"coco:{root}", "train")[0]


def test_two_images_that_differ_in_suffix_alone_are_refused(write_coco: Writer) -> None:
    images = [
        {"id": number, "file_name": f"a.{kind}"} for number, kind in enumerate(("jpg", "png"))
    ]
    with pytest.raises(DataError, match=r"names are of two images, e.g. 'a'"):
        open_dataset(f"coco:{write_coco([], images=images)}", "train")


def test_categories_may_differ_by_capital_letters_alone(write_coco: Writer) -> None:
    root = write_coco([], categories=[{"id": 1, "name": " a "}, {"id": 2, "name": "A"}])
    names = [info.name for info in open_dataset(f"coco:{root}", "train").classes]
    assert names == ["background", "a", "A"]


def test_categories_that_differ_by_spaces_alone_are_refused(write_coco: Writer) -> None:
    root = write_coco([], categories=[{"id": 1, "name": " a "}, {"id": 2, "name": "a"}])
    with pytest.raises(DataError, match="categories 1 and 2 are both called 'a'"):
        open_dataset(f"coco:{root}", "train")


@pytest.mark.parametrize("side", [None, 0])
def test_a_size_that_nobody_says_is_none(write_coco: Writer, side: int | None) -> None:
    images = [{"id": 1, "file_name": "000001.png", "width": side, "height": side}]
    root = write_coco([_object(7, BIG_BOX)], images=images)
    assert open_dataset(f"coco:{root}", "train")[0].label_HW[8, 10] == 2


def test_run_lengths_may_be_written_as_floats(write_coco: Writer) -> None:
    mask = {"size": [16.0, 24.0], "counts": [16.0 * 4, 16.0 * 3, 16.0 * 17]}
    root = write_coco([_object(2, mask)])
    assert (open_dataset(f"coco:{root}", "train")[0].label_HW == 1).sum() == 16 * 3


def test_a_picture_is_found_whether_a_mac_wrote_its_name_or_not(
    write_coco: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    named = unicodedata.normalize("NFC", "stück.png")
    root = write_coco([], images=[{"id": 1, "file_name": named, "width": 24, "height": 16}])
    write_picture(root / "train2017" / unicodedata.normalize("NFD", named), picture)
    assert len(open_dataset(f"coco:{root}", "train")) == 1


def test_two_images_of_one_id_are_refused(write_coco: Writer) -> None:
    images = [{"id": 1, "file_name": f"{name}.png"} for name in ("a", "b")]
    with pytest.raises(DataError, match=r"1 ids are of two images, e.g. 1, .*number them anew"):
        open_dataset(f"coco:{write_coco([], images=images)}", "train")


def test_two_files_for_one_split_are_refused(write_coco: Writer) -> None:
    root = write_coco([])
    file = root / "annotations" / "instances_train2017.json"
    (root / "annotations" / "instances_train2018.json").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"both .*2017\.json and .*2018\.json are there for train"):
        open_dataset(f"coco:{root}", "train")


def test_missing_images_and_stray_annotations_are_problems(write_coco: Writer) -> None:
    root = write_coco(
        [_object(2, BIG_BOX), _object(2, BIG_BOX, image_id=44)],
        images=[{"id": 1, "file_name": "000001.png"}, {"id": 3, "file_name": "000003.png"}],
    )
    with pytest.raises(DataError, match=r"000003\.png: listed in instances_train2017\.json"):
        open_dataset(f"coco:{root}", "train")
    train = check_dataset(f"coco:{root}").splits[0]
    assert (train.pairs, train.readable, len(train.problems)) == (1, 1, 2)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": 3, "categories": []}', "\x80"])
def test_a_file_that_is_not_coco_s_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"_annotations\.coco\.json: "):
        open_dataset(f"coco:{tmp_path}", "train")


def test_a_missing_split_says_which_files_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingSplitError, match=r"annotations/instances_val\*\.json"):
        open_dataset(f"coco:{tmp_path}", "val")


def test_roboflow_s_export_is_read_with_its_valid_folder(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    write_picture(tmp_path / "valid" / "a.png", picture)
    table = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": CATEGORIES,
        "annotations": [_object(2, BIG_BOX)],
    }
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(table))
    assert open_dataset(f"coco:{tmp_path}", "val")[0].label_HW[8, 8] == 1


@pytest.fixture
def panoptic_root(tmp_path: Path, write_picture: Writer, picture: np.ndarray) -> Path:
    segments = np.zeros((16, 24, 3), np.uint8)
    segments[:8], segments[8:12] = (10, 1, 0), (3, 0, 2)  # 10 + 256, 3 + 2 * 256^2
    write_picture(tmp_path / "val2017" / "000001.jpg", picture)
    write_picture(tmp_path / "annotations" / "panoptic_val2017" / "000001.png", segments)
    table = {
        "images": [{"id": 1, "file_name": "000001.jpg"}],
        "categories": CATEGORIES,
        "annotations": [
            {
                "image_id": 1,
                "file_name": "000001.png",
                "segments_info": [
                    {"id": 266, "category_id": 7},
                    {"id": 3 + 2 * 65536, "category_id": 2},
                ],
            }
        ],
    }
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(table))
    return tmp_path


def test_panoptic_segments_become_classes(panoptic_root: Path) -> None:
    label = open_dataset(f"coco:{panoptic_root}", "val")[0].label_HW
    assert (label[:8] == 2).all()
    assert (label[8:12] == 1).all()
    assert (label[12:] == 0).all()


def test_panoptic_pictures_in_a_palette_or_grey_are_segments_too(
    panoptic_root: Path, write_picture: Writer
) -> None:
    file = panoptic_root / "annotations" / "panoptic_val2017" / "000001.png"
    with Image.open(file) as segments:
        in_palette = segments.quantize(8)
    in_palette.save(file)
    assert in_palette.mode == "P"
    label = open_dataset(f"coco:{panoptic_root}", "val")[0].label_HW
    assert (label[:8] == 2).all() and (label[8:12] == 1).all() and (label[12:] == 0).all()
    write_picture(file, np.full((16, 24), 9, np.uint8))
    with pytest.raises(DataError, match=r"unknown label colour .*9, 9, 9"):
        open_dataset(f"coco:{panoptic_root}", "val")[0]


def test_a_segment_that_is_not_listed_is_refused(
    panoptic_root: Path, write_picture: Writer
) -> None:
    label = panoptic_root / "annotations" / "panoptic_val2017" / "000001.png"
    write_picture(label, np.full((16, 24, 3), 77, np.uint8))
    with pytest.raises(DataError, match=r"000001\.png: unknown label colour \[77, 77, 77\]"):
        open_dataset(f"coco:{panoptic_root}", "val")[0]


def test_a_missing_panoptic_label_is_a_problem(panoptic_root: Path) -> None:
    (panoptic_root / "annotations" / "panoptic_val2017" / "000001.png").unlink()
    with pytest.raises(DataError, match=r"000001\.png: listed in .*no such label"):
        open_dataset(f"coco:{panoptic_root}", "val")


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
