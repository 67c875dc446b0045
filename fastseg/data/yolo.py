"""YOLO segment labels as class maps, in the folders that ultralytics describes.

    images/train/NAME.jpg  labels/train/NAME.txt     or  train/images/...  train/labels/...
    classes.txt, one name a line, or data.yaml with `names:` (needs PyYAML)

Each line of a label file is "class x1 y1 x2 y2 ...": the corners of one object as fractions of
the image's width and height. Class 0 is "background", every pixel that no object covers; YOLO's
class n is class n + 1. An image without a label file has no objects, as YOLO has it. Later lines
are drawn on top. Format: docs.ultralytics.com, "Instance Segmentation Datasets".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import BACKGROUND, generated_color, is_background, read_lines
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    FileDataset,
    Pair,
    Problem,
    Sieve,
    find_folders,
    list_files,
    name_within,
    read_text,
)
from fastseg.data.label_codec import fill_polygon
from fastseg.data.splits import SPLIT_NAMES

_LAYOUTS = (("images/{name}", "labels/{name}"), ("{name}/images", "{name}/labels"))
_LINE = "class x1 y1 x2 y2 x3 y3 ... with a known class and fractions from 0 to 1"


@dataclass(frozen=True)
class SegmentReader:
    """Draws the class map of an image from the lines of its label file."""

    class_ids: tuple[int, ...]  # by YOLO's number
    sieve: Sieve = field(default_factory=Sieve, compare=False)

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where no object is."""
        label_HW: Array = np.zeros((height, width), np.uint8)
        if not pair.label.is_file():
            return label_HW
        for number, line in enumerate(read_text(pair.label).splitlines(), start=1):
            if line.strip():
                with self.sieve.annotation(partial(_ignore_box, label_HW, line)):
                    class_id, corners_V2 = self._parse(line, f"{pair.label}: line {number}")
                    fill_polygon(label_HW, corners_V2 * (width, height), class_id)
        return label_HW

    def _parse(self, line: str, place: str) -> tuple[int, Array]:
        words = line.split()
        numbers = [_number(word) for word in words]
        if lost := [word for word, number in zip(words, numbers, strict=True) if number is None]:
            raise DataError(
                f"{place} cannot be read ({lost[0]!r:.40} is no number); expected {_LINE}"
            )
        index, *values = (number for number in numbers if number is not None)
        if len(values) == 4:
            raise DataError(f"{place} is a box (5 numbers); expected a polygon: {_LINE}")
        if len(values) % 2:
            odd = f"{len(values)} numbers after the class are no pairs"
            raise DataError(f"{place} cannot be read ({odd}, a confidence?); expected {_LINE}")
        corners_V2 = np.array(values).reshape(-1, 2)
        inside = ((corners_V2 >= -0.01) & (corners_V2 <= 1.01)).all()  # tools round outwards
        known = index.is_integer() and 0 <= index < len(self.class_ids)
        if not known or len(corners_V2) < 3 or not inside:
            raise DataError(f"{place} is {line[:60]!r}; expected {_LINE}")
        return self.class_ids[int(index)], corners_V2


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _ignore_box(label_HW: Array, line: str) -> None:
    """Ignore the box of an object whose outline is not known: it is there, but not where."""
    numbers = [_number(word) for word in line.split()]
    if len(numbers) != 5 or any(n is None or not 0 <= n <= 1 for n in numbers[1:]):
        return
    height, width = label_HW.shape
    x, y, box_width, box_height = (number or 0.0 for number in numbers[1:])
    left, top = (x - box_width / 2) * width, (y - box_height / 2) * height
    right, bottom = math.ceil(left + box_width * width), math.ceil(top + box_height * height)
    label_HW[max(0, int(top)) : bottom, max(0, int(left)) : right] = IGNORE_INDEX


def open_yolo(location: str, split: str) -> FileDataset:
    """Open one split of a data set of YOLO segments.

    Raises:
        DataError: no class names.
        MissingSplitError: no folder of images for this split.
    """
    root = Path(location)
    classes, class_ids = _classes(_names(root))
    images, labels = _folders(root, split)
    image_files = list_files(images, IMAGE_SUFFIXES)
    names = [name_within(images, file) for file in image_files]
    pairs = tuple(
        Pair(name, file, labels / f"{name}.txt")
        for name, file in zip(names, image_files, strict=True)
    )
    problems = _mismatches(pairs, labels)
    reader, added = SegmentReader(class_ids), (BACKGROUND.name,)
    return FileDataset("yolo", split, classes, "", pairs, reader, problems, added)


def _classes(names: Sequence[str]) -> tuple[tuple[ClassInfo, ...], tuple[int, ...]]:
    """Return the classes, and the class id of each of YOLO's: its background is ours."""
    own = [name for name in names if not is_background(name)]
    classes = (BACKGROUND, *(ClassInfo(n, generated_color(i)) for i, n in enumerate(own)))
    return classes, tuple(own.index(n) + 1 if n in own else 0 for n in names)


def _mismatches(pairs: Sequence[Pair], labels: Path) -> tuple[Problem, ...]:
    """Return the labels without an image, and the images that share a label with another."""
    known: dict[str, Path] = {}
    problems = []
    for pair in pairs:
        if pair.name in known:
            text = f"has the same name as {known[pair.name].name}"
            problems.append(Problem(str(pair.image), text))
        known.setdefault(pair.name, pair.image)
    for file in list_files(labels, (".txt",)):
        if (name := name_within(labels, file)) not in known:
            problems.append(Problem(str(file), f"label has no image {name}"))
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
        lines = read_lines(source)
        names = [line.name for line in lines]
        if [line.value for line in lines] != list(range(len(lines))):
            raise DataError(f"{source}: YOLO's classes are numbered from 0, without a gap")
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
        is_yaml = not isinstance(error, yaml.YAMLError)
        wrong = "no names, or not numbered from 0" if is_yaml else " ".join(str(error).split())
        raise DataError(
            f"{source}: cannot read the class names ({wrong}); expected "
            "names: [a, b] or names: {0: a, 1: b}"
        ) from error
    return [str(name) for name in ordered]
