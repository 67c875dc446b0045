from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastseg.data import DataError, MissingSplitError, open_dataset
from fastseg.data.folder import hashed_split

Writer = Callable[..., Path]


def test_split_folders_pair_images_with_labels(tmp_path: Path, write_folder: Writer) -> None:
    dataset = open_dataset(f"folder:{write_folder(tmp_path)}", "train")
    assert len(dataset) == 3
    assert [info.name for info in dataset.classes] == ["sky", "road", "tree"]
    sample = dataset[0]
    assert sample.name == "train0"
    assert sample.image_HW3.shape == (16, 24, 3)
    assert sample.label_HW.shape == (16, 24)
    assert [Path(file).parent.name for file in sample.files] == ["images", "labels"]
    assert dataset[-1].name == "train2"
    with pytest.raises(IndexError):
        dataset[3]


def test_splits_may_lie_inside_images_and_labels(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    for kind in ("images", "labels"):
        (root / kind).mkdir()
        (root / "train" / kind).rename(root / kind / "train")
        (root / "val" / kind).rename(root / kind / "val")
    assert len(open_dataset(f"folder:{root}", "train")) == 3
    assert len(open_dataset(f"folder:{root}", "val")) == 1


def test_one_folder_is_split_by_name_for_good(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    (tmp_path / "classes.txt").write_text("ground\n")
    label = np.zeros(picture.shape[:2], np.uint8)
    for number in range(60):
        write_picture(tmp_path / "images" / f"{number}.png", picture)
        write_picture(tmp_path / "labels" / f"{number}.png", label)
    splits = {
        split: open_dataset(f"folder:{tmp_path}", split) for split in ("train", "val", "test")
    }
    names = {split: {pair.name for pair in data.pairs} for split, data in splits.items()}  # type: ignore[attr-defined]
    assert sum(map(len, names.values())) == 60
    assert set.union(*names.values()) == {str(number) for number in range(60)}
    assert all(hashed_split(name) == split for split, found in names.items() for name in found)
    assert len(names["train"]) > 40


def test_a_hashed_split_keeps_its_shares() -> None:
    splits = [hashed_split(f"picture_{number}") for number in range(4000)]
    assert 0.77 < splits.count("train") / 4000 < 0.83
    assert 0.08 < splits.count("val") / 4000 < 0.12


def test_colour_masks_are_read_by_the_class_list(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 1})
    mask = np.empty((16, 24, 3), np.uint8)
    mask[:8], mask[8:] = (0, 0, 255), (90, 90, 90)
    write_picture(root / "train" / "labels" / "train0.png", mask)
    label = open_dataset(f"folder:{root}", "train")[0].label_HW
    assert (label[:8] == 0).all()
    assert (label[8:] == 1).all()


def test_files_without_a_partner_are_refused_by_name(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    (root / "train" / "labels" / "train1.png").unlink()
    (root / "train" / "images" / "train2.png").unlink()
    with pytest.raises(DataError) as error:
        open_dataset(f"folder:{root}", "train")
    assert "train1.png: image has no label train1" in str(error.value)
    assert "train2.png: label has no image train2" in str(error.value)


def test_two_files_of_one_name_are_refused(
    tmp_path: Path, write_folder: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "images" / "train0.jpg", picture)
    with pytest.raises(DataError, match="has the same name as train0"):
        open_dataset(f"folder:{root}", "train")


def test_a_label_of_another_size_is_refused_by_name(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "labels" / "train1.png", np.zeros((10, 24), np.uint8))
    dataset = open_dataset(f"folder:{root}", "train")
    with pytest.raises(DataError, match=r"train1\.png: label is 24x10, its image .* is 24x16"):
        dataset[1]


def test_values_out_of_range_are_refused_by_name(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "labels" / "train1.png", np.full((16, 24), 3, np.uint8))
    with pytest.raises(DataError, match=r"train1\.png: unknown label value 3 \(384 px\)"):
        open_dataset(f"folder:{root}", "train")[1]


def test_a_missing_split_says_which_folders_it_needs(tmp_path: Path, write_folder: Writer) -> None:
    with pytest.raises(MissingSplitError, match="expected test/images and test/labels"):
        open_dataset(f"folder:{write_folder(tmp_path)}", "test")


def test_a_folder_without_images_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\n")
    with pytest.raises(DataError, match="expected images/ and labels/"):
        open_dataset(f"folder:{tmp_path}", "train")


def test_an_empty_split_is_refused(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    for file in (root / "val").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="split val is empty"):
        open_dataset(f"folder:{root}", "val")


def test_a_hashed_split_begins_and_ends_at_its_percent() -> None:
    seen = {}
    for number in range(1000):
        name = f"picture_{number}"
        percent = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
        seen[percent] = hashed_split(name)
    edges = {percent: seen[percent] for percent in (0, 79, 80, 89, 90, 99)}
    assert edges == {0: "train", 79: "train", 80: "val", 89: "val", 90: "test", 99: "test"}


@pytest.mark.parametrize("kind", ["folder", "yolo", "camvid"])
def test_a_folder_that_is_not_there_is_said_to_be_so(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*: no such folder") as caught:
        open_dataset(f"{kind}:{tmp_path / 'nowhere'}", "train")
    assert "Errno" not in str(caught.value)
