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
    find_folders,
    list_files,
    pair_files,
)

_LAYOUTS = (("{name}/images", "{name}/labels"), ("images/{name}", "labels/{name}"))


def open_folder(location: str, split: str) -> FileDataset:
    """Open one split of a folder in any of the layouts above.

    Raises:
        DataError: no such folder, no classes.txt, or no images beside labels.
        MissingSplitError: there are split folders, but not this one.
    """
    root = Path(location)
    classes, codec = read_classes(root / "classes.txt")
    images, labels = _folders(root, split)
    hashed = images == root / "images"
    image_files, label_files = (
        [f for f in list_files(folder, suffixes) if not hashed or hashed_split(f.stem) == split]
        for folder, suffixes in ((images, IMAGE_SUFFIXES), (labels, LABEL_SUFFIXES))
    )
    pairs, problems = pair_files(image_files, label_files)
    return FileDataset("folder", split, classes, "", pairs, MaskReader(codec), problems)


def hashed_split(name: str) -> str:
    """Return the split of a picture in a folder without splits."""
    percent = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "train" if percent < 80 else "val" if percent < 90 else "test"


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    if found := find_folders(root, _LAYOUTS, [split]):
        return found
    images = (root / layout[0].format(name=other) for layout in _LAYOUTS for other in SPLITS)
    if any(folder.is_dir() for folder in images):
        raise MissingSplitError(
            f"{root}: no split {split!r}; expected {split}/images and {split}/labels"
        )
    if found := find_folders(root, [("images", "labels")], [""]):
        return found
    raise DataError(
        f"{root}: no images here; expected images/ and labels/ in it, or in train/, val/ and test/"
    )
