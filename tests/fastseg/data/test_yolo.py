from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fastseg.data import DataError, MissingSplitError, check_dataset, open_dataset

Writer = Callable[..., Path]
BOX = "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n"


@pytest.fixture
def write_yolo(tmp_path: Path, write_picture: Writer, picture: np.ndarray) -> Writer:
    def write(lines: str | None, names: str = "cat\ndog\n", file: str = "classes.txt") -> Path:
        write_picture(tmp_path / "images" / "train" / "a.png", picture)
        (tmp_path / "labels" / "train").mkdir(parents=True)
        (tmp_path / file).write_text(names)
        if lines is not None:
            (tmp_path / "labels" / "train" / "a.txt").write_text(lines)
        return tmp_path

    return write


def test_polygons_become_classes_and_the_rest_background(write_yolo: Writer) -> None:
    dataset = open_dataset(f"yolo:{write_yolo(BOX)}", "train")
    assert [info.name for info in dataset.classes] == ["background", "cat", "dog"]
    label = dataset[0].label_HW
    assert (label[5:11, 7:17] == 2).all()
    assert set(np.unique(label)) == {0, 2}
    assert (label == 2).mean() == pytest.approx(0.25, abs=0.08)


def test_an_object_of_a_class_that_is_ignored_is_not_judged(write_yolo: Writer) -> None:
    root = write_yolo(BOX, "cat\nignore\ndog\n")
    dataset = open_dataset(f"yolo:{root}", "train")
    assert [info.name for info in dataset.classes] == ["background", "cat", "dog"]
    assert set(np.unique(dataset[0].label_HW)) == {0, 255}


def test_later_objects_lie_on_top(write_yolo: Writer) -> None:
    label = open_dataset(f"yolo:{write_yolo(BOX + BOX.replace('1', '0', 1))}", "train")[0].label_HW
    assert label[8, 12] == 1


def test_a_label_file_is_found_whether_a_mac_wrote_its_name_or_not(write_yolo: Writer) -> None:
    root = write_yolo(BOX)
    for form, file in (("NFD", "images/train/a.png"), ("NFC", "labels/train/a.txt")):
        name = unicodedata.normalize(form, "stück")
        (root / file).rename((root / file).with_stem(name))
    assert open_dataset(f"yolo:{root}", "train")[0].label_HW.any()
    (root / "classes.txt").unlink()
    (root / "list.txt").write_text("images/train/stück.png\n")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt\n")
    assert open_dataset(f"yolo:{root}", "train")[0].label_HW.any()


def test_names_may_differ_by_capital_letters_alone(write_yolo: Writer) -> None:
    root = write_yolo(BOX, "a\nA\n")
    dataset = open_dataset(f"yolo:{root}", "train")
    assert [info.name for info in dataset.classes] == ["background", "a", "A"]


@pytest.mark.parametrize("lines", [None, "", "\n\n"])
def test_an_image_without_objects_is_background(
    write_yolo: Writer, write_picture: Writer, picture: np.ndarray, lines: str | None
) -> None:
    root = write_yolo(lines)
    write_picture(root / "images" / "train" / "b.png", picture)
    (root / "labels" / "train" / "b.txt").write_text(BOX)
    assert not open_dataset(f"yolo:{root}", "train")[0].label_HW.any()


def test_a_split_without_any_label_file_is_not_all_background(write_yolo: Writer) -> None:
    root = write_yolo(None)
    with pytest.raises(DataError, match=r"none of 1 pictures of train .*labels/train/a\.txt"):
        open_dataset(f"yolo:{root}", "train")
    (root / "labels" / "train" / "a.txt").touch()
    assert not open_dataset(f"yolo:{root}", "train")[0].label_HW.any()


def test_pictures_for_testing_without_labels_leave_a_set_ready_to_train(
    write_yolo: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    root = write_yolo(BOX + BOX.replace("1", "0", 1).replace("0.75", "0.5"))
    write_picture(root / "images" / "val" / "b.png", picture[::-1])
    (root / "labels" / "val").mkdir()
    (root / "labels" / "val" / "b.txt").write_text(BOX)
    write_picture(root / "images" / "test" / "c.png", picture)
    (root / "labels" / "test").mkdir()
    report = check_dataset(f"yolo:{root}")
    assert report.ok, report.problems
    assert "no split test" in report.warnings
    with pytest.raises(DataError, match="none of 1 pictures of test has a label file"):
        open_dataset(f"yolo:{root}", "test")


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names:\n  0: cat\n  1: dog\n"])
def test_data_yaml_gives_the_names(write_yolo: Writer, names: str) -> None:
    pytest.importorskip("yaml")
    dataset = open_dataset(f"yolo:{write_yolo(BOX, names, 'data.yaml')}", "train")
    assert [info.name for info in dataset.classes] == ["background", "cat", "dog"]


@pytest.mark.parametrize("names", ["nc: 2\n", "names: 3\n", "names: {1: a}\n", "names: [a\n", ""])
def test_a_data_yaml_without_names_is_refused(write_yolo: Writer, names: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(DataError, match=r"data\.yaml: cannot read the class names"):
        open_dataset(f"yolo:{write_yolo(BOX, names, 'data.yaml')}", "train")


def test_names_that_grow_by_aliases_are_refused_at_once(write_yolo: Writer) -> None:
    pytest.importorskip("yaml")
    lines = [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghijk")]
    bomb = "\n".join(["a: &a [x]", *lines, "names: *k", "train: a"])
    assert len(bomb) < 500
    with pytest.raises(DataError, match=r"data\.yaml: .*aliases") as caught:
        open_dataset(f"yolo:{write_yolo(BOX, bomb, 'data.yaml')}", "train")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["2020-99-99", "0123", "!!int 'x'", "no"])
def test_names_in_a_yaml_are_texts_whatever_they_look_like(write_yolo: Writer, name: str) -> None:
    pytest.importorskip("yaml")
    lines = f"names: [dog, {name}]\ntest: null\n"
    dataset = open_dataset(f"yolo:{write_yolo(BOX, lines, 'data.yaml')}", "train")
    assert dataset.classes[2].name == name.removeprefix("!!int ").strip("'")


@pytest.mark.parametrize("name", ['" "', '"\\e[31m"', "9" * 5000])
def test_a_class_name_that_no_bundle_can_hold_is_refused(write_yolo: Writer, name: str) -> None:
    pytest.importorskip("yaml")
    root = write_yolo(BOX, f"names: [dog, {name}]\n", "data.yaml")
    with pytest.raises(DataError, match=r"the class '.*expected a name of 1 to 200"):
        open_dataset(f"yolo:{root}", "train")


def test_without_pyyaml_the_error_names_two_ways_out(
    write_yolo: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_yolo(BOX, "names: [a]\n", "data.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DataError, match=r"pip install pyyaml.*classes\.txt"):
        open_dataset(f"yolo:{root}", "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box"),
        ("2 0 0 1 0 1 1", "with a known class"),
        ("-1 0 0 1 0 1 1", "with a known class"),
        ("0 0 0 1 0 1", "cannot be read"),
        ("0 0 0 1 0", "is a box"),
        ("0 0 0", "x1 y1"),
        ("0 0 0 99 0 1 1", "fractions from 0 to 1"),
        ("0 0 0 nan 0 1 1", "fractions from 0 to 1"),
        ("cat 0 0 1 0 1 1", "cannot be read"),
    ],
)
def test_lines_that_are_no_polygon_are_refused_by_number(
    write_yolo: Writer, line: str, message: str
) -> None:
    dataset = open_dataset(f"yolo:{write_yolo(BOX + line)}", "train")
    with pytest.raises(DataError, match=rf"a\.txt: line 2 .*{message}"):
        dataset[0]


def test_a_label_without_image_is_refused(write_yolo: Writer) -> None:
    root = write_yolo(BOX)
    (root / "labels" / "train" / "b.txt").write_text(BOX)
    with pytest.raises(DataError, match=r"b\.txt: label has no image b"):
        open_dataset(f"yolo:{root}", "train")


def test_missing_splits_and_names_are_named(write_yolo: Writer) -> None:
    root = write_yolo(BOX)
    with pytest.raises(MissingSplitError, match="expected the folders images/val"):
        open_dataset(f"yolo:{root}", "val")
    (root / "classes.txt").write_text("a\na\n")
    with pytest.raises(DataError, match="different names"):
        open_dataset(f"yolo:{root}", "train")


def test_a_folder_of_a_list_that_is_missing_is_named(write_yolo: Writer) -> None:
    text = "names: [cat, dog]\ntrain: [images/train, images/Train2]\n"
    root = write_yolo(BOX, text, "data.yaml")
    with pytest.raises(DataError, match=r"names 'images/Train2', no such folder"):
        open_dataset(f"yolo:{root}", "train")
    (root / "data.yaml").write_text(text.replace(", images/Train2", ""))
    assert len(open_dataset(f"yolo:{root}", "train")) == 1


def test_two_images_with_one_label_are_refused(
    write_yolo: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    root = write_yolo(BOX)
    write_picture(root / "images" / "train" / "a.bmp", picture)
    with pytest.raises(DataError, match=r"a\.png: has the same name as a\.bmp"):
        open_dataset(f"yolo:{root}", "train")


@pytest.mark.parametrize("listed", [True, False])
def test_a_label_file_in_capital_letters_is_found_or_named(
    listed: bool, write_yolo: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    pytest.importorskip("yaml")
    text = "names: [cat, dog]\n" + "train: list.txt\n" * listed
    root = write_yolo(BOX, text, "data.yaml")
    write_picture(root / "images" / "train" / "b.png", picture)
    (root / "list.txt").write_text("images/train/a.png\nimages/train/b.png\n")
    labels = root / "labels" / "train"
    (labels / "a.txt").rename(labels / "a.TXT")
    dataset = open_dataset(f"yolo:{root}", "train")
    assert dataset[0].label_HW.any() and not dataset[1].label_HW.any()
    (labels / "B.txt").write_text(BOX)
    if (labels / "b.txt").exists():
        pytest.skip("this disk knows no capital letters")
    with pytest.raises(DataError, match=r"B\.txt: label has no image B"):
        open_dataset(f"yolo:{root}", "train")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [dog, cat]\n", "classes cat, dog, data.yaml has dog, cat; which of them"),
        ("names: [cat]\n", "data.yaml has cat;"),
        ("kpt_shape: [4, 2]\nnames: [cat, dog]\n", "expected polygons"),
        ("names: {0: Cat, 1: dog}\n", ""),
        ("nc: 2\n", ""),
    ],
)
def test_a_yaml_beside_classes_txt_has_to_say_the_same(
    yaml: str, message: str, write_yolo: Writer
) -> None:
    pytest.importorskip("yaml")
    root = write_yolo(BOX)
    (root / "data.yaml").write_text(yaml)
    if message:
        with pytest.raises(DataError, match=message):
            open_dataset(f"yolo:{root}", "train")
    else:
        dataset = open_dataset(f"yolo:{root}", "train")
        assert [info.name for info in dataset.classes] == ["background", "cat", "dog"]


def test_a_yaml_beside_classes_txt_says_where_pictures_are(
    write_yolo: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    pytest.importorskip("yaml")
    root = write_yolo(BOX)
    write_picture(root / "images" / "more" / "b.png", picture)
    (root / "labels" / "more").mkdir()
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: [images/train, images/more]\n")
    assert len(open_dataset(f"yolo:{root}", "train")) == 2


def test_without_pyyaml_classes_txt_is_enough(
    write_yolo: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_yolo(BOX)
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert len(open_dataset(f"yolo:{root}", "train")) == 1
