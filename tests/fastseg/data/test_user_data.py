"""Each case of user_data.py: refused with the sentence that helps, or read as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data import (
    SPLITS,
    DataError,
    Dataset,
    ReadOptions,
    check_dataset,
    open_dataset,
    with_options,
)
from fastseg.data.read_options import parse_spec
from fastseg.data.splits import choose_names, look_like_frames
from fastseg.data.survey import NARROW_LEVELS
from tests.fastseg.data.user_data import (
    CASES,
    Case,
    Draw,
    coco,
    folder,
    of_values,
    png,
    scene,
    unsplit,
)

PYTHONS_WORDS = re.compile(r"Error\b|NoneType|object is not|Traceback|invalid literal|reshape")


def truth(name: str, classes: int) -> np.ndarray:
    return scene(int(re.findall(r"\d+", name)[-1]), classes)[1]


def assert_right(dataset: Dataset, case: Case) -> None:
    assert tuple(info.name for info in dataset.classes) == case.classes
    for sample in (dataset[index] for index in range(len(dataset))):
        assert sample.image_HW3.shape[:2] == sample.label_HW.shape
        expected_HW = truth(sample.name, len(case.classes))
        if sample.turned == "both":
            expected_HW = np.rot90(expected_HW, -1)
        judged_HW = sample.label_HW != 255
        if expected_HW.shape == judged_HW.shape:
            assert (sample.label_HW == expected_HW)[judged_HW].all(), sample.name
            assert judged_HW.mean() > 0.9 or not judged_HW.any()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_data_as_people_have_them_are_refused_or_right(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    report = check_dataset(case.spec(tmp_path))
    files = [problem for split in report.splits for problem in split.problems]
    wrong = "\n".join(f"{p.file}: {p.message}" for p in (*report.problems, *files))
    said = "\n".join(report.warnings)
    assert not PYTHONS_WORDS.search(wrong + said)
    assert report.ok == (not case.wrong), wrong
    assert re.search(case.wrong, wrong), wrong
    assert re.search(case.said, said), said
    if report.ok:
        for split in report.splits:
            if split.pairs:
                assert_right(open_dataset(case.spec(tmp_path), split.split), case)


def test_a_narrow_range_is_stretched_to_what_it_was(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "12 bits in 16, told")
    case.write(tmp_path)
    sample = open_dataset(case.spec(tmp_path), "train")[0]
    assert np.abs(sample.image_HW3.astype(int) - scene(0)[0]).max() <= 1


@pytest.mark.parametrize(("levels", "said"), [(NARROW_LEVELS - 1, True), (NARROW_LEVELS, False)])
def test_fewer_levels_than_bits_that_are_lost_are_said(
    levels: int, said: bool, tmp_path: Path
) -> None:
    def ramp(path: Path, image_HW3: np.ndarray, number: int) -> None:
        values = np.linspace(100, 100 + levels, 32 * 48).round().astype(np.uint8)
        values = np.random.default_rng(0).permutation(values)
        png(path, np.repeat(values.reshape(32, 48, 1), 3, 2), number)

    folder(tmp_path, image=ramp)
    warnings = check_dataset(f"folder:{tmp_path}").warnings
    assert any("--image-range" in warning for warning in warnings) == said


def _image_of(width: int, height: int) -> Draw:
    def draw(path: Path, _: np.ndarray, number: int) -> None:
        wide = number == 0
        png(path, np.resize(scene(number)[0], (height, width if wide else height, 3)), number)

    return draw


@pytest.mark.parametrize(("width", "said"), [(109, False), (111, True)])
def test_another_aspect_is_said_above_a_tenth(width: int, said: bool, tmp_path: Path) -> None:
    draw = _image_of(width, 100)
    folder(tmp_path, image=draw, label=lambda p, _, n: draw_label(p, width if n == 0 else 100))
    warnings = check_dataset(f"folder:{tmp_path}").warnings
    assert any("another aspect" in warning for warning in warnings) == said


def draw_label(path: Path, width: int) -> None:
    png(path, np.resize(np.uint8([0, 1, 2]), (100, width)), 0)


def test_a_name_that_is_no_utf_8_has_a_split_too() -> None:
    names = {"caf\udce9", "b", "c"}  # as unzip leaves it of a Windows archive
    assert set().union(*(choose_names(names, split) for split in SPLITS)) == names


@settings(max_examples=40)
@given(st.sets(st.text("abc/0123", min_size=1, max_size=6), min_size=1, max_size=40))
def test_a_picture_without_a_split_is_in_one_and_val_gets_one_of_two(names: set[str]) -> None:
    splits = [choose_names(names, split) for split in SPLITS]
    assert set.union(*splits) == names
    assert sum(map(len, splits)) == len(names)
    assert sum(map(bool, splits)) == min(3, len(names))
    assert splits[0]
    assert splits[1] or len(names) == 1


def test_a_sequence_stays_together() -> None:
    names = {f"drive{drive}/{frame:04d}" for drive in range(9) for frame in range(5)}
    for by in ("folder", "^[^/]+", "drive([0-9])"):
        splits = [choose_names(names, split, by) for split in SPLITS]
        drives = [{name.partition("/")[0] for name in split} for split in splits]
        assert all(drives)
        assert sum(map(len, drives)) == 9


def test_one_broken_file_of_a_few_may_be_left_out_and_two_not(tmp_path: Path) -> None:
    folder(tmp_path)
    spec = f"folder:{tmp_path}?skip-broken=0.05"
    (tmp_path / "train/labels/s01.png").unlink()
    dataset = open_dataset(spec, "train")
    assert len(dataset) == 3
    assert [Path(problem.file).name for problem in dataset.skipped] == ["s01.png"]  # type: ignore[attr-defined]
    (tmp_path / "train/labels/s02.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 of 4 pictures are broken, more than 5%") as e:
        open_dataset(spec, "train")
    assert "s01.png: image has no label" in str(e.value)
    assert "s02.png: expected a picture" in str(e.value)
    assert len(open_dataset(f"folder:{tmp_path}?skip-broken=0.5", "train")) == 2


def test_exactly_the_share_that_is_told_may_be_broken(tmp_path: Path) -> None:
    unsplit(tmp_path, 50)
    names = sorted(choose_names((file.stem for file in (tmp_path / "images").iterdir()), "train"))
    allowed = int(0.05 * len(names))
    for name in names[:allowed]:
        (tmp_path / "labels" / f"{name}.png").write_bytes(b"no picture")
    spec = f"folder:{tmp_path}?skip-broken=0.05"
    assert len(open_dataset(spec, "train")) == len(names) - allowed
    (tmp_path / "labels" / f"{names[-1]}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{allowed + 1} of {len(names)} pictures are broken"):
        open_dataset(spec, "train")


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([40, 2, 6, 3], slice(2, 5), slice(40, 46)),
        ([44, -4, 99, 6], slice(0, 2), slice(44, 48)),
        ([-20, 0, 10, 32], slice(0), slice(0)),
    ],
)
def test_an_object_that_is_left_out_leaves_its_box_ignored(
    box: list[int], rows: slice, columns: slice, tmp_path: Path
) -> None:
    coco(tmp_path, more=[{"id": 9, "image_id": 3, "category_id": 1, "bbox": box, "area": 1e9}])
    label_HW = open_dataset(f"coco:{tmp_path}?skip-broken=0.05", "train")[3].label_HW
    inside_HW = np.zeros_like(label_HW, bool)
    inside_HW[rows, columns] = True
    assert not (label_HW == 255)[~inside_HW].any()
    assert (label_HW == 255).any() == inside_HW.any()


@settings(max_examples=40)
@given(
    st.sampled_from(["folder:/a?b=c/d", "camvid:x y", "yolo:ü"]),
    st.builds(ReadOptions, st.just("0:4095"), st.text(max_size=9), st.floats(0.01, 1)),
)
def test_what_is_said_of_reading_survives_in_the_string(bare: str, options: ReadOptions) -> None:
    spec = with_options(bare, options)
    assert parse_spec(spec) == (bare, options)
    assert with_options(spec, ReadOptions()) == spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("image-range=9:1", "cannot read the image range '9:1'"),
        ("image-range=5", "write LOW:HIGH"),
        ("image-range=a:b", "write LOW:HIGH"),
        ("image-range=nan:1", "write LOW:HIGH"),
        ("skip-broken=2", "skip-broken is a share"),
        ("skip-broken=x", "skip-broken is a share"),
        ("split-by=(", "no regular expression"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: str, message: str, tmp_path: Path) -> None:
    unsplit(tmp_path, 4)
    with pytest.raises(DataError, match=message):
        open_dataset(f"folder:{tmp_path}?{options}", "train")


def test_drawn_data_take_no_options_of_files() -> None:
    with pytest.raises(DataError, match="no data of files"):
        open_dataset("synthetic?split-by=folder", "train")


def test_a_folder_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/images/again").symlink_to(root / "train/images")
    assert len(open_dataset(f"folder:{root}", "train")) == 4


def test_one_broken_picture_of_a_narrow_range_costs_no_report(tmp_path: Path) -> None:
    def dark(path: Path, image_HW3: np.ndarray, number: int) -> None:
        png(path, image_HW3 // 32, number)

    folder(tmp_path, image=dark)
    picture = sorted((tmp_path / "train" / "images").iterdir())[0]
    picture.write_bytes(b"")
    report = check_dataset(f"folder:{tmp_path}")
    assert any("--image-range" in warning for warning in report.warnings)
    assert [problem.message for split in report.splits for problem in split.problems]


def test_a_sensor_s_holes_are_no_part_of_the_range_that_is_advised(tmp_path: Path) -> None:
    def holed(path: Path, image_HW3: np.ndarray, number: int) -> None:
        pixels = (image_HW3[..., 0] // 8).astype(np.float32)
        pixels[0, :3] = np.nan, np.inf, -np.inf
        path.with_suffix(".tif").write_bytes(cv2.imencode(".tif", pixels)[1].tobytes())

    folder(tmp_path, image=holed)
    warnings = check_dataset(f"folder:{tmp_path}?image-range=0:255").warnings
    assert any("--image-range 0:31," in warning for warning in warnings)


def test_all_black_pictures_are_given_no_advice_that_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, image=lambda path, image, number: png(path, 0 * image, number))
    warnings = check_dataset(f"folder:{tmp_path}").warnings
    assert any("pictures use 1 of 256 levels" in warning for warning in warnings)
    assert not any("--image-range" in warning for warning in warnings)


def test_one_mask_that_contradicts_the_others_is_the_only_one_that_is_broken(
    tmp_path: Path,
) -> None:
    def label(path: Path, label_HW: np.ndarray, number: int) -> None:
        png(path, (label_HW > 0).astype(np.uint8) * (255 if number == 3 else 1), number)

    folder(tmp_path, label=label, classes="0 background 0 0 0\n1 object 255 255 255\n")
    train = check_dataset(f"folder:{tmp_path}").splits[0]
    assert len(train.problems) <= 1 and train.readable >= train.pairs - 1


def test_masks_that_are_edited_under_an_open_notebook_are_read_anew(tmp_path: Path) -> None:
    colors = "0 background 0 0 0\n1 polyp 255 255 255\n"
    folder(tmp_path, label=of_values(0, 2), classes=colors, count=2)
    with pytest.raises(DataError):
        open_dataset(f"folder:{tmp_path}", "train")[0]
    shutil.rmtree(tmp_path)
    folder(tmp_path, label=of_values(0, 255), classes=colors, count=2)
    assert set(np.unique(open_dataset(f"folder:{tmp_path}", "train")[0].label_HW)) <= {0, 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0001TP_{:06d}".format, True),
        ("frame_{:04d}_rgb".format, True),
        (lambda n: f"img_{n * n:06d}", False),
    ],
)
def test_each_nth_frame_of_a_video_looks_like_one(name: Callable[[int], str], said: bool) -> None:
    assert look_like_frames([name(6690 + 30 * n) for n in range(40)]) == said
