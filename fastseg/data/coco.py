"""COCO annotations as class maps: instances (polygons, run lengths, crowds) or panoptic PNGs.

    annotations/panoptic_SPLIT*.json   with the PNGs in a folder of the same name beside it
    annotations/instances_SPLIT*.json
    SPLIT/_annotations.coco.json       instances beside their images (Roboflow's export)

The first of these that is there is read; SPLIT is train, val (or valid) and test, and images are
looked for in SPLIT2017/ and the like, images/..., images/ and SPLIT/. Class 0 is "background":
every pixel that nothing covers. The other classes are the categories in the order of their ids.
Where instances overlap, the smaller one is on top. Format: cocodataset.org, "Data format".

Run lengths go down the columns, the first run is of zeros. Packed into a string, each character
holds 5 bits plus a flag that more follow, offset by 48; from the fourth run on, it is the
difference to the run two before (cocodataset/cocoapi, common/maskApi.c, rleFrString).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.class_list import generated_color
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, MissingSplitError
from fastseg.data.file_dataset import FileDataset, LabelReader, MaskReader, Pair, Problem
from fastseg.data.label_codec import LabelCodec, fill_polygon

BACKGROUND = ClassInfo("background", (0, 0, 0))
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
_FILES = (
    "annotations/panoptic_{name}*.json",
    "annotations/instances_{name}*.json",
    "{name}/_annotations.coco.json",
)
Table = Mapping[str, Any]
_OFFSET, _BITS, _MORE, _SIGN = 48, 0x1F, 0x20, 0x10  # of a character of packed run lengths
_PLAIN_RUNS = 3  # of packed ones these are stored as they are, the rest as differences


@dataclass(frozen=True)
class InstanceReader:
    """Draws the class map of an image from its objects.

    Attributes:
        objects: annotations by the name of their pair, large ones first.
        class_ids: class id by category id.
        sizes: width and height by the name of the pair, where the JSON has them.
    """

    objects: Mapping[str, Sequence[Table]]
    class_ids: Mapping[int, int]
    sizes: Mapping[str, tuple[int, int]]

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where no object is."""
        if self.sizes.get(pair.name, (width, height)) != (width, height):
            raise DataError(
                f"{pair.image}: image is {width}x{height} (upright), {pair.label.name} says "
                f"{self.sizes[pair.name]}; annotations are drawn in pixels, so they have to agree"
            )
        label_HW: Array = np.zeros((height, width), np.uint8)
        for entry in self.objects.get(pair.name, ()):
            try:
                _draw(label_HW, entry["segmentation"], self.class_ids[entry["category_id"]])
            except (KeyError, TypeError, ValueError) as error:
                wrong = error if isinstance(error, ValueError) else f"{error!r} in its fields"
                raise DataError(
                    f"{pair.label}: annotation {entry.get('id')} of {pair.image.name}: {wrong}; "
                    "expected a listed category_id, and polygons or run lengths at the image's size"
                ) from error
        return label_HW


@dataclass(frozen=True)
class PanopticReader:
    """Reads a PNG whose colours are segment numbers: red + 256 green + 256^2 blue."""

    segments: Mapping[str, Mapping[int, int]]  # class id by segment number, by the name of the pair

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where the segment number is 0."""
        colors = {
            (number & 255, number >> 8 & 255, number >> 16): class_id
            for number, class_id in ({0: 0} | dict(self.segments[pair.name])).items()
        }
        return MaskReader(LabelCodec({}, colors))(pair, height, width)


def open_coco(location: str, split: str) -> FileDataset:
    """Open one split of a data set in COCO's format.

    Raises:
        DataError: the JSON is not COCO's.
        MissingSplitError: there is no annotation file for this split.
    """
    root = Path(location)
    source = _annotation_file(root, split)
    table = _load(source)
    try:
        return _dataset(root, split, source, table)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{source}: not COCO's format, {error!r} is missing or of the wrong type; expected "
            "images, annotations and categories as lists of objects"
        ) from error


def _annotation_file(root: Path, split: str) -> Path:
    for pattern in _FILES:
        for name in SPLIT_NAMES[split]:
            if found := sorted(root.glob(pattern.format(name=name))):
                return found[0]
    expected = ", ".join(_FILES).format(name=split)
    raise MissingSplitError(f"{root}: no annotations for split {split!r}; expected {expected}")


def _load(source: Path) -> Table:
    try:
        table = json.loads(source.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read as JSON ({error})") from error
    if not isinstance(table, dict):
        raise DataError(f"{source}: expected a JSON object, got {type(table).__name__}")
    return table


def _dataset(root: Path, split: str, source: Path, table: Table) -> FileDataset:
    categories = sorted(table["categories"], key=lambda category: int(category["id"]))
    if len(categories) >= MAX_CLASSES:
        raise DataError(f"{source}: {len(categories)} categories; at most {MAX_CLASSES - 1} fit")
    class_ids = {int(category["id"]): index for index, category in enumerate(categories, start=1)}
    named = (ClassInfo(str(c["name"]), generated_color(i)) for i, c in enumerate(categories))
    images = _image_files(root, split, source, table)
    make = _panoptic if source.name.startswith("panoptic_") else _instances
    pairs, reader, problems = make(source, table, images, class_ids)
    problems += [
        Problem(str(pair.image), f"listed in {source.name}, no such image")
        for pair in pairs
        if not pair.image.is_file()
    ]
    pairs = [pair for pair in pairs if pair.image.is_file()]
    return FileDataset(
        "coco", split, (BACKGROUND, *named), "", tuple(pairs), reader, tuple(problems)
    )


def _image_files(root: Path, split: str, source: Path, table: Table) -> dict[int, Path]:
    """Return the file of each image id, in the first folder that holds the first of them."""
    names = {int(image["id"]): str(image["file_name"]) for image in table["images"]}
    counts = Counter(map(_name, names.values()))
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(
            f"{source}: {len(twice)} names are of two images, e.g. {twice[0]!r}, whatever their "
            "suffix; rename one of each"
        )
    subset = source.stem.partition("_")[2]  # "train2017" of instances_train2017
    folders = [root / subset, root / "images" / subset, root / "images", source.parent]
    folders += [root / name for name in SPLIT_NAMES[split]]
    first = next(iter(names.values()), "")
    folder = next((folder for folder in folders if (folder / first).is_file()), folders[0])
    return {number: folder / name for number, name in names.items()}


def _name(file_name: str) -> str:
    return Path(file_name).with_suffix("").as_posix()


def _instances(
    source: Path, table: Table, images: Mapping[int, Path], class_ids: Mapping[int, int]
) -> tuple[list[Pair], LabelReader, list[Problem]]:
    names = {int(image["id"]): _name(image["file_name"]) for image in table["images"]}
    sizes = {
        _name(image["file_name"]): (int(image["width"]), int(image["height"]))
        for image in table["images"]
        if "width" in image and "height" in image
    }
    objects: dict[str, list[Table]] = {}
    problems = []
    for entry in sorted(table["annotations"], key=lambda entry: -float(entry.get("area", 0))):
        if entry["image_id"] in names:
            objects.setdefault(names[entry["image_id"]], []).append(entry)
        else:
            text = f"annotation {entry.get('id')} is of image {entry['image_id']}, not listed"
            problems.append(Problem(str(source), text))
    pairs = [Pair(names[number], file, source) for number, file in sorted(images.items())]
    return pairs, InstanceReader(objects, class_ids, sizes), problems


def _panoptic(
    source: Path, table: Table, images: Mapping[int, Path], class_ids: Mapping[int, int]
) -> tuple[list[Pair], LabelReader, list[Problem]]:
    pairs, segments, problems = [], {}, []
    for entry in table["annotations"]:
        name, label = _name(entry["file_name"]), source.with_suffix("") / entry["file_name"]
        if entry["image_id"] not in images:
            problems.append(Problem(str(label), f"is of image {entry['image_id']}, not listed"))
        elif not label.is_file():
            problems.append(Problem(str(label), f"listed in {source.name}, no such label"))
        else:
            pairs.append(Pair(name, images[entry["image_id"]], label))
            found = entry["segments_info"]
            segments[name] = {int(s["id"]): class_ids[s["category_id"]] for s in found}
    labelled = {entry["image_id"] for entry in table["annotations"]}
    for number in sorted(images.keys() - labelled):
        problems.append(Problem(str(images[number]), f"image has no annotation in {source.name}"))
    return pairs, PanopticReader(segments), problems


def _draw(label_HW: Array, segmentation: Any, class_id: int) -> None:
    """Draw one object: a list of polygons, or run lengths."""
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("it has no outline, a box at most")
        for numbers in segmentation:
            corners_V2 = np.asarray(numbers, np.float64).reshape(-1, 2)
            if len(corners_V2) < 3 or not np.isfinite(corners_V2).all():
                raise ValueError(f"polygon of {len(corners_V2)} corners")
            fill_polygon(label_HW, corners_V2, class_id)
        return
    if list(segmentation["size"]) != list(label_HW.shape):
        raise ValueError(f"run lengths of size {segmentation['size']}, not {label_HW.shape}")
    label_HW[decode_runs(segmentation["counts"], *label_HW.shape)] = class_id


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> Array:
    """Return the mask of one object, (height, width) bool.

    Raises:
        ValueError: the runs are negative, unreadable, or do not fill the picture.
    """
    runs = unpack_runs(counts) if isinstance(counts, str) else list(counts)
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"run lengths have to be 0 or more and add up to {height} x {width}")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(bits.reshape(width, height).T)


def unpack_runs(text: str) -> list[int]:
    """Return the run lengths of a packed string.

    Raises:
        ValueError: a character outside the code, or a number that is cut off.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _OFFSET
        if not 0 <= code <= _BITS | _MORE:
            raise ValueError(f"character {character!r} is not in the code of run lengths")
        value |= (code & _BITS) << shift
        shift += 5
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) >= _PLAIN_RUNS else value)
        value = shift = 0
    if shift:
        raise ValueError("the last run length is cut off")
    return runs
