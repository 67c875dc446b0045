from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastseg.data
from fastseg.data import LOADERS, DataError, class_frequencies, open_dataset

Writer = Callable[..., Path]


def test_every_line_of_the_table_names_a_function() -> None:
    for target in LOADERS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_an_unknown_kind_is_answered_with_the_choices() -> None:
    with pytest.raises(DataError, match=r"no data set kind 'kitti'.*one of \[.*'camvid'"):
        open_dataset("kitti:somewhere", "train")


def test_an_unknown_split_is_answered_with_the_choices() -> None:
    with pytest.raises(DataError, match="no split 'dev'; choose one of"):
        open_dataset("synthetic", "dev")


def test_trainval_is_train_then_val(tmp_path: Path, write_folder: Writer) -> None:
    dataset = open_dataset(f"folder:{write_folder(tmp_path)}", "trainval")
    assert dataset.split == "trainval"
    assert dataset.name == "folder"
    names = [dataset[index].name for index in range(len(dataset))]
    assert names == ["train0", "train1", "train2", "val0"]
    assert dataset[-1].name == "val0"
    with pytest.raises(IndexError):
        dataset[4]


def test_class_frequencies_leave_ignored_pixels_out(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 2})
    for number, value in enumerate((1, 255)):
        label = np.full((16, 24), value, np.uint8)
        write_picture(root / "train" / "labels" / f"train{number}.png", label)
    assert class_frequencies(open_dataset(f"folder:{root}", "train"), 3).tolist() == [0, 384, 0]


def test_data_code_imports_no_torch() -> None:
    folder = Path(str(fastseg.data.__file__)).parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])]
            imported = [getattr(node, "module", None) or "", *names]
            assert not any(name.split(".")[0] == "torch" for name in imported), file
