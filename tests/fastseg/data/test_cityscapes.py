from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastseg.data import DataError, MissingSplitError, open_dataset

Writer = Callable[..., Path]
NAME = "aachen_000000_000019"
IDS = np.concatenate((np.arange(34), np.full(16 * 24 - 34, 7))).reshape(16, 24).astype(np.uint8)


def _write(root: Path, write_picture: Writer, picture: np.ndarray, kind: str) -> None:
    write_picture(root / "leftImg8bit/train/aachen" / f"{NAME}_leftImg8bit.png", picture)
    ids = IDS if kind == "labelIds" else IDS % 19
    write_picture(root / "gtFine/train/aachen" / f"{NAME}_gtFine_{kind}.png", ids)


def test_label_ids_become_the_19_training_classes(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    _write(tmp_path, write_picture, picture, "labelIds")
    dataset = open_dataset(f"cityscapes:{tmp_path}", "train")
    sample = dataset[0]
    by_id = dict(zip(IDS.ravel().tolist(), sample.label_HW.ravel().tolist(), strict=True))
    names = {value: dataset.classes[index].name for value, index in by_id.items() if index != 255}
    assert sample.name == NAME
    assert len(dataset.classes) == 19
    assert names[7] == "road"
    assert names[19] == "traffic light"
    assert names[33] == "bicycle"
    assert [value for value in by_id if by_id[value] == 255] == [
        *(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
    ]
    assert list(names.values()) == [info.name for info in dataset.classes]  # in training order


def test_training_ids_are_read_as_they_are(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    _write(tmp_path, write_picture, picture, "labelTrainIds")
    label = open_dataset(f"cityscapes:{tmp_path}", "train")[0].label_HW
    assert (label == IDS % 19).all()


def test_both_kinds_of_labels_beside_each_other_are_no_conflict(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    _write(tmp_path, write_picture, picture, "labelIds")
    _write(tmp_path, write_picture, picture, "labelTrainIds")
    assert len(open_dataset(f"cityscapes:{tmp_path}", "train")) == 1


def test_an_image_without_label_is_refused(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    _write(tmp_path, write_picture, picture, "labelIds")
    write_picture(tmp_path / "leftImg8bit/train/bonn/bonn_1_2_leftImg8bit.png", picture)
    with pytest.raises(DataError, match=r"bonn_1_2_leftImg8bit\.png: image has no label"):
        open_dataset(f"cityscapes:{tmp_path}", "train")


def test_missing_folders_and_splits_are_named(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    with pytest.raises(DataError, match="expected leftImg8bit/ and gtFine/"):
        open_dataset(f"cityscapes:{tmp_path}", "train")
    _write(tmp_path, write_picture, picture, "labelIds")
    with pytest.raises(MissingSplitError, match="no split 'val'"):
        open_dataset(f"cityscapes:{tmp_path}", "val")
