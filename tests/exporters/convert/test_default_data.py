"""Which images are taken when none are named: those that the checkpoint records, if still there."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_exporters.convert.default_data import RecordedData, recorded_data, unseen_split
from fastseg_runtime.bundle.palette import numbered_classes

from fastseg import CheckpointInfo

CLASSES = numbered_classes(3)


def info(data: Any, trained_on: str = "folder train") -> CheckpointInfo:
    training = {} if data is None else {"data": data}
    return CheckpointInfo("nano", CLASSES, training=training, trained_on=trained_on)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """A folder with three classes and one picture in each split."""
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\n")
    for split in ("train", "val", "test"):
        for part, shape in (("images", (8, 8, 3)), ("labels", (8, 8))):
            folder = tmp_path / split / part
            folder.mkdir(parents=True)
            assert cv2.imwrite(str(folder / "0.png"), np.zeros(shape, np.uint8))
    return f"folder:{tmp_path}"


def test_the_data_of_the_training_is_taken_where_it_still_is(dataset: str) -> None:
    found = recorded_data(info(dataset))
    assert found.spec == dataset
    assert "as in the training" in found.note


def test_data_that_are_gone_are_named_and_left(dataset: str) -> None:
    found = recorded_data(info(f"{dataset}/moved"))
    assert found.spec is None
    assert "cannot be used here" in found.note
    assert "moved" in found.note


def test_data_with_other_classes_are_left_too(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    found = recorded_data(info(dataset))
    assert found.spec is None
    assert "has 2 classes, the network 3" in found.note


@pytest.mark.parametrize("data", [None, 3, ["camvid"]])
def test_a_checkpoint_that_records_none_is_no_surprise(data: Any) -> None:
    assert recorded_data(info(data)) == RecordedData()


def test_pictures_that_were_trained_on_are_not_verified_on() -> None:
    assert unseen_split("camvid train", "camvid:here") == "val"
    assert unseen_split("camvid trainval", "camvid:here") == "test"
    assert unseen_split("camvid trainval", "folder:elsewhere") == "val"
