"""A folder of images and labels with a classes.txt: the layout for data of your own.

    classes.txt            see class_list.py
    train/images/NAME.jpg  train/labels/NAME.png        and the same under val/ and test/
    images/train/NAME.jpg  labels/train/NAME.png        the same, the other way round
    images/NAME.jpg        labels/NAME.png              no splits: see below

Labels are index PNGs or colour masks. Without split folders each picture goes to a split by the
SHA-256 of its name: 80 % train, 10 % val, 10 % test. A picture stays in its split for good,
however many are added.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastseg.data.class_list import read_classes
from fastseg.data.dataset import SPLITS, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FileDataset,
    MaskReader,
    list_files,
    pair_files,
)

_LAYOUTS = (("{split}/images", "{split}/labels"), ("images/{split}", "labels/{split}"))


def open_folder(location: str, split: str) -> FileDataset:
    """Open one split of a folder in any of the layouts above.

    Raises:
        DataError: no such folder, no classes.txt, or no images beside labels.
        MissingSplitError: there are split folders, but not this one.
    """
    root = Path(location)
    classes, codec = read_classes(root / "classes.txt")
    images, labels = _folders(root, split)
    image_files, label_files = (
        list_files(images, IMAGE_SUFFIXES),
        list_files(labels, LABEL_SUFFIXES),
    )
    if images == root / "images":
        image_files = [file for file in image_files if hashed_split(file.stem) == split]
        label_files = [file for file in label_files if hashed_split(file.stem) == split]
    pairs, problems = pair_files(image_files, label_files)
    return FileDataset("folder", split, classes, "", pairs, MaskReader(codec), problems)


def hashed_split(name: str) -> str:
    """Return the split of a picture in a folder without splits."""
    percent = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "train" if percent < 80 else "val" if percent < 90 else "test"


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    for layout in _LAYOUTS:
        images, labels = (root / folder.format(split=split) for folder in layout)
        if images.is_dir() and labels.is_dir():
            return images, labels
    if any(
        (root / layout[0].format(split=other)).is_dir() for layout in _LAYOUTS for other in SPLITS
    ):
        raise MissingSplitError(
            f"{root}: no split {split!r}; expected {split}/images and {split}/labels"
        )
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return root / "images", root / "labels"
    raise DataError(
        f"{root}: no images here; expected images/ and labels/ in it, or in train/, val/ and test/"
    )
