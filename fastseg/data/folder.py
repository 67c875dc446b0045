"""A folder of images and labels with a classes.txt: the layout for data of your own.

    classes.txt            see class_list.py
    train/images/NAME.jpg  train/labels/NAME.png        and the same under val/ and test/
    images/train/NAME.jpg  labels/train/NAME.png        the same, the other way round
    images/NAME.jpg        labels/NAME.png              no splits: see splits.py

and all other spellings of folders and names, with or without a list: see mask_folders.py.

Labels are index PNGs or colour masks. NAME may be a path: what lies in folders in there is paired
by that. A split may be called as splits.SPLIT_NAMES has it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from fastseg.data.class_list import read_classes
from fastseg.data.dataset import SPLITS, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FileDataset,
    MaskReader,
    file_called,
    find_folders,
    list_files,
    pair_files,
)
from fastseg.data.mask_folders import looks_like_folders, open_mask_folders, refuse_other_order
from fastseg.data.pairing import folders_there
from fastseg.data.recognise import recognised_by
from fastseg.data.splits import SPLIT_NAMES, hashed_split

__all__ = ["hashed_split", "open_folder"]
_LAYOUTS = (("{name}/images", "{name}/labels"), ("images/{name}", "labels/{name}"))


@recognised_by(looks_like_folders, general=True)
def open_folder(location: str, split: str) -> FileDataset:
    """Open one split of a folder in any of the layouts above.

    Raises:
        DataError: no such folder, no classes.txt, or no images beside labels.
        MissingSplitError: there are split folders, but not this one.
    """
    root = Path(location)
    if not _is_plain(root):
        return open_mask_folders(location, split)
    named = file_called(root, "classes.txt")
    classes, codec = read_classes(named)
    refuse_other_order(root, named)
    images, labels = _folders(root, split)
    image_files, label_files = (
        list_files(images, IMAGE_SUFFIXES),
        list_files(labels, LABEL_SUFFIXES),
    )
    pairs, problems = pair_files(image_files, label_files, folders=(images, labels))
    notes = [f"the list names one class; {name!r} is what it is told from" for name in codec.added]
    if not pairs:  # names may share a part alone
        with contextlib.suppress(DataError):
            other = open_mask_folders(location, split)
            if other.pairs:
                return other
    return FileDataset(
        "folder",
        split,
        classes,
        "",
        pairs,
        MaskReader(codec),
        problems,
        added=codec.added,
        unsplit=images == root / "images",
        notes=tuple(notes),
    )


def _is_plain(root: Path) -> bool:
    """Return whether the folders are those above; one without any is told so by their names."""
    if not file_called(root, "classes.txt").is_file():
        return not root.is_dir()
    names = [name for of_split in SPLIT_NAMES.values() for name in of_split]
    return bool(folders_there(root, (*_LAYOUTS, ("images", "labels")), names))


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    if found := find_folders(root, _LAYOUTS, SPLIT_NAMES[split]):
        return found
    others = [name for other in SPLITS for name in SPLIT_NAMES[other]]
    images = (root / layout[0].format(name=name) for layout in _LAYOUTS for name in others)
    if any(folder.is_dir() for folder in images):
        raise MissingSplitError(
            f"{root}: no split {split!r}; expected {split}/images and {split}/labels"
        )
    if found := find_folders(root, [("images", "labels")], [""]):
        return found
    raise DataError(
        f"{root}: no images here; expected images/ and labels/ in it, or in train/, val/ and test/"
    )
