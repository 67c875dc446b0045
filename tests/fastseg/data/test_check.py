from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fastseg.data import check_dataset, render_report

Writer = Callable[..., Path]


def _text(spec: str) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(render_report(check_dataset(spec)))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_sound_set_is_ready_to_train(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path, {"train": 3, "val": 1, "test": 1})
    report = check_dataset(f"folder:{root}")
    assert report.ok
    assert not report.warnings
    train = report.splits[0]
    assert (train.split, train.pairs, train.readable) == ("train", 3, 3)
    assert train.sizes == {"24x16": 3}
    assert [count.name for count in train.classes] == ["sky", "road", "tree"]
    assert sum(count.pixel_share for count in train.classes) == pytest.approx(1)
    assert all(count.images == 3 for count in train.classes)


def test_the_histogram_counts_pixels_and_images(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 2})
    half = np.zeros((16, 24), np.uint8)
    half[:4], half[8:] = 2, 255
    write_picture(root / "train/labels/train0.png", half)
    write_picture(root / "train/labels/train1.png", np.zeros_like(half))
    train = check_dataset(f"folder:{root}").splits[0]
    shares = {count.name: (count.pixel_share, count.images) for count in train.classes}
    assert shares["tree"] == (pytest.approx(96 / (384 + 192)), 1)
    assert shares["sky"][1] == 2
    assert shares["road"] == (0, 0)
    assert train.ignored_share == pytest.approx(0.25)


def test_every_broken_file_is_listed_and_the_rest_is_counted(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 6, "val": 1})
    labels = root / "train" / "labels"
    (labels / "train0.png").unlink()
    (labels / "train1.png").write_bytes((labels / "train1.png").read_bytes()[:60])
    write_picture(labels / "train2.png", np.zeros((4, 4), np.uint8))
    write_picture(labels / "train3.png", np.full((16, 24), 9, np.uint8))
    report = check_dataset(f"folder:{root}")
    train = report.splits[0]
    assert not report.ok
    assert (train.pairs, train.readable) == (5, 2)
    assert train.unknown_labels == {"9": 384}
    found = [(Path(problem.file).name, problem.message.split()[0]) for problem in train.problems]
    assert found == [
        ("train0.png", "image"),
        ("train1.png", "ends"),
        ("train2.png", "label"),
        ("train3.png", "unknown"),
    ]
    assert "unknown label values 9 (384 px)" in _text(f"folder:{root}")
    assert "not ready to train" in _text(f"folder:{root}")


def test_pictures_in_two_splits_are_found_under_any_name(
    tmp_path: Path, write_folder: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 2, "val": 1})
    copied = (root / "train/images/train1.png").read_bytes()
    (root / "val/images/val0.png").write_bytes(copied)
    report = check_dataset(f"folder:{root}")
    assert [(o.splits, o.kind, o.names) for o in report.overlaps] == [
        (("train", "val"), "pixels", ("val0",))
    ]
    assert not report.ok


def test_equal_names_in_two_splits_are_a_warning(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path, {"train": 2, "val": 1})
    for kind in ("images", "labels"):
        (root / "val" / kind / "val0.png").rename(root / "val" / kind / "train0.png")
    report = check_dataset(f"folder:{root}")
    assert report.ok
    assert "train and val share 1 names, e.g. train0" in report.warnings


def test_masks_of_0_and_255_get_a_hint(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 1})
    mask = np.full((16, 24), 255, np.uint8)
    mask[:2] = 0
    write_picture(root / "train/labels/train0.png", mask)
    warnings = "\n".join(check_dataset(f"folder:{root}").warnings)
    assert "88% of the pixels are ignored" in warnings
    assert "train has no pixel of class tree" in warnings
    assert "no split val" in warnings


@pytest.mark.parametrize("spec", ["nonsense", "camvid:/no/such/folder", "folder:", "synthetic:x=1"])
def test_a_set_that_cannot_be_opened_is_a_report_too(spec: str) -> None:
    report = check_dataset(spec)
    assert not report.ok
    assert len(report.problems) == 1
    assert report.problems[0].message
    assert "not ready to train" in _text(spec)


@pytest.mark.skipif(os.name != "posix", reason="no such names elsewhere")
def test_a_file_s_name_tells_a_terminal_nothing(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path, {"train": 1, "val": 1})
    (root / "train" / "images" / "\x1b]0;mine\x07\x9b31m.png").write_bytes(b"no picture")
    text = _text(f"folder:{root}")
    assert not set("\x1b\x07\x9b") & set(text)
    assert "\\u001b]0;mine" in text.replace("\n", "")


def test_splits_of_other_classes_are_a_report_with_each_class_in_a_row_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uneven_samples.py").write_text(
        "import numpy as np\n"
        "class Samples(list):\n"
        "    pass\n"
        "def mine(split):\n"
        "    found = Samples([(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), int))])\n"
        "    found.classes = ['sky', 'road', 'tree'][: 3 if split == 'train' else 2]\n"
        "    return found\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = _text("uneven_samples:mine")
    assert "tree" in text and "not ready to train" in text


def test_the_report_is_json(tmp_path: Path, write_folder: Writer) -> None:
    report = check_dataset(f"folder:{write_folder(tmp_path)}")
    table = json.loads(json.dumps(dataclasses.asdict(report)))
    assert table["splits"][0]["sizes"] == {"24x16": 3}


def test_generated_scenes_are_sound_and_never_in_two_splits() -> None:
    report = check_dataset("synthetic:size=96x72,train=30,val=15,test=15")
    assert report.ok
    assert not report.overlaps
    assert [split.readable for split in report.splits] == [30, 15, 15]


def test_few_pictures_that_lack_a_class_are_told_no_list_to_correct(
    tmp_path: Path, write_picture: Writer
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    label = np.arange(16 * 24).reshape(16, 24).astype(np.uint8) % 12  # 11 is Void
    label[label == 8] = 0
    for split in ("train", "val"):
        write_picture(tmp_path / split / "images" / f"{split}.png", picture + (split == "val"))
        write_picture(tmp_path / split / "labels" / f"{split}.png", label)
    problem = check_dataset(f"camvid:{tmp_path}").problems[-1].message
    assert problem.startswith("train has no pixel of class Car in 1 picture; add some that show")
    assert "255" not in problem and "list" not in problem


@pytest.mark.slow
def test_real_camvid_is_ready_to_train(camvid_path: Path) -> None:
    report = check_dataset(f"camvid:{camvid_path}")
    assert report.ok
    assert not report.overlaps
    sky = report.splits[0].classes[0]
    assert (round(sky.pixel_share, 5), sky.images) == (0.17538, 366)


@pytest.mark.parametrize(("pixels", "rare"), [(2, False), (1, True)])
def test_a_class_below_a_thousandth_of_the_pixels_is_rare(
    pixels: int, rare: bool, tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 1})
    label = np.repeat(np.uint8([0, 1]), 1000).reshape(40, 50)
    label[0, :pixels] = 2
    write_picture(root / "train/images/train0.png", np.zeros((40, 50, 3), np.uint8))
    write_picture(root / "train/labels/train0.png", label)
    warnings = check_dataset(f"folder:{root}").warnings
    assert any("tree has only" in warning for warning in warnings) == rare


@pytest.mark.parametrize(("ignored", "told"), [(192, False), (193, True)])
def test_more_than_half_of_the_pixels_ignored_is_told(
    ignored: int, told: bool, tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 1})
    label = np.arange(384).reshape(16, 24) % 3
    label.flat[:ignored] = 255
    write_picture(root / "train/labels/train0.png", label.astype(np.uint8))
    warnings = check_dataset(f"folder:{root}").warnings
    assert any("of the pixels are ignored" in warning for warning in warnings) == told
