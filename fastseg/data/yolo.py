"""YOLO segment labels as class maps, in the folders that ultralytics describes.

    images/train/NAME.jpg  labels/train/NAME.txt     or  train/images/...  train/labels/...
    classes.txt, one name a line, or data.yaml with `names:` (needs PyYAML)

Each line of a label file is "class x1 y1 x2 y2 ...": the corners of one object as fractions of
the image's width and height. Class 0 is "background", every pixel that no object covers; YOLO's
class n is class n + 1. An image without a label file has no objects, as YOLO has it. Later lines
are drawn on top. Format: docs.ultralytics.com, "Instance Segmentation Datasets".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.class_list import generated_color
from fastseg.data.coco import BACKGROUND, SPLIT_NAMES
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    FileDataset,
    Pair,
    Problem,
    find_folders,
    list_files,
    read_text,
)
from fastseg.data.label_codec import fill_polygon

_LAYOUTS = (("images/{name}", "labels/{name}"), ("{name}/images", "{name}/labels"))
_LINE = "class x1 y1 x2 y2 x3 y3 ... with a known class and fractions from 0 to 1"


@dataclass(frozen=True)
class SegmentReader:
    """Draws the class map of an image from the lines of its label file."""

    num_names: int

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where no object is."""
        label_HW: Array = np.zeros((height, width), np.uint8)
        if not pair.label.is_file():
            return label_HW
        for number, line in enumerate(read_text(pair.label).splitlines(), start=1):
            if line.strip():
                class_id, corners_V2 = self._parse(line, f"{pair.label}: line {number}")
                fill_polygon(label_HW, corners_V2 * (width, height), class_id)
        return label_HW

    def _parse(self, line: str, place: str) -> tuple[int, Array]:
        words = line.split()
        if len(words) == 5:
            raise DataError(f"{place} is a box (5 numbers); expected a polygon: {_LINE}")
        try:
            index, corners_V2 = int(words[0]), np.array(words[1:], np.float64).reshape(-1, 2)
        except ValueError as error:
            raise DataError(f"{place} cannot be read ({error}); expected {_LINE}") from error
        inside = ((corners_V2 >= -0.01) & (corners_V2 <= 1.01)).all()  # tools round outwards
        if not 0 <= index < self.num_names or len(corners_V2) < 3 or not inside:
            raise DataError(f"{place} is {line[:60]!r}; expected {_LINE}")
        return index + 1, corners_V2


def open_yolo(location: str, split: str) -> FileDataset:
    """Open one split of a data set of YOLO segments.

    Raises:
        DataError: no class names.
        MissingSplitError: no folder of images for this split.
    """
    root = Path(location)
    names = _names(root)
    classes = (BACKGROUND, *(ClassInfo(n, generated_color(i)) for i, n in enumerate(names)))
    images, labels = _folders(root, split)
    image_files = list_files(images, IMAGE_SUFFIXES)
    pairs = tuple(Pair(f.stem, f, labels / f"{f.stem}.txt") for f in image_files)
    problems = _mismatches(pairs, list_files(labels, (".txt",)))
    return FileDataset("yolo", split, classes, "", pairs, SegmentReader(len(names)), problems)


def _mismatches(pairs: Sequence[Pair], labels: Sequence[Path]) -> tuple[Problem, ...]:
    """Return the labels without an image, and the images that share a label with another."""
    known: dict[str, Path] = {}
    problems = []
    for pair in pairs:
        if pair.name in known:
            text = f"has the same name as {known[pair.name].name}"
            problems.append(Problem(str(pair.image), text))
        known.setdefault(pair.name, pair.image)
    strays = (file for file in labels if file.stem not in known)
    problems += [Problem(str(file), f"label has no image {file.stem}") for file in strays]
    return tuple(problems)


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    if found := find_folders(root, _LAYOUTS, SPLIT_NAMES[split]):
        return found
    expected = " or ".join(" + ".join(layout) for layout in _LAYOUTS).format(name=split)
    raise MissingSplitError(f"{root}: no split {split!r}; expected the folders {expected}")


def _names(root: Path) -> list[str]:
    """Return the class names of classes.txt or data.yaml."""
    source = root / "classes.txt"
    if source.is_file():
        names = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    else:
        source = root / "data.yaml"
        names = _yaml_names(source)
    if not 1 <= len(names) < MAX_CLASSES or len(set(names)) < len(names):
        raise DataError(f"{source}: expected 1 to {MAX_CLASSES - 1} different names, got {names}")
    return names


def _yaml_names(source: Path) -> list[str]:
    """Return `names:` of a data.yaml, a list or a table by number."""
    try:
        import yaml  # type: ignore[import-untyped]  # only where data.yaml is read
    except ImportError as error:
        raise DataError(
            f"{source}: reading it needs PyYAML (pip install pyyaml); or write the class names "
            "to a classes.txt beside it, one a line"
        ) from error
    try:
        table = yaml.safe_load(read_text(source))
        names = table["names"]
        ordered = names if isinstance(names, list) else [names[i] for i in range(len(names))]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(
            f"{source}: cannot read the class names ({' '.join(str(error).split())}); expected "
            "names: [a, b] or names: {0: a, 1: b}"
        ) from error
    return [str(name) for name in ordered]
