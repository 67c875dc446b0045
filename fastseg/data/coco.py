"""COCO annotations as class maps: instances (polygons, run lengths, crowds) or panoptic PNGs.

    annotations/panoptic_SPLIT*.json   with the PNGs in a folder of the same name beside it
    annotations/instances_SPLIT*.json
    SPLIT/_annotations.coco.json       instances beside their images (Roboflow's export)
    NAME.json, annotations/NAME.json   instances of all images, without splits: CVAT's
                                       instances_default.json, Label Studio's result.json, ...

The first of these that is there is read; SPLIT is train, val (or valid) and test, and images are
looked for in SPLIT2017/ and the like, images/..., images/ and SPLIT/, and by their name alone if
none is there. Where one file has all images, each goes to a split by its name. The path may be that
file itself.

Class 0 is "background": every pixel that nothing covers. The other classes are the categories of
train in the order of their ids, in the other splits by their names. Where instances overlap, the
smaller one is on top. Format: cocodataset.org, "Data format".

Run lengths go down the columns, the first run is of zeros. Packed into a string, each character
holds 5 bits plus a flag that more follow, offset by 48; from the fourth run on, it is the
difference to the run two before (cocodataset/cocoapi, common/maskApi.c, rleFrString).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import BACKGROUND, generated_color, is_background, is_ignored
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, LabelSizeError, MissingSplitError
from fastseg.data.file_dataset import FileDataset, LabelReader, MaskReader, Pair, Problem, Sieve
from fastseg.data.label_codec import (
    LabelCodec,
    fill_polygon,
    ignore_box,
    refuse_fractions,
    refuse_outside,
)
from fastseg.data.named_files import (
    PictureFinder,
    begins_with,
    clean_path,
    only_table,
    read_json,
)
from fastseg.data.recognise import recognised_by
from fastseg.data.splits import SPLIT_NAMES

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
    class_ids: Mapping[Any, int]
    sizes: Mapping[str, tuple[int, int]]
    sieve: Sieve = field(default_factory=Sieve, compare=False)

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map; 0 where no object is."""
        if self.sizes.get(pair.name, (width, height)) != (width, height):
            raise LabelSizeError(
                f"{pair.image}: image is {width}x{height} (upright), {pair.label.name} says "
                f"{self.sizes[pair.name]}; annotations are drawn in pixels, so they have to agree"
            )
        label_HW: Array = np.zeros((height, width), np.uint8)
        for entry in self.objects.get(pair.name, ()):
            with self.sieve.annotation(partial(_ignore_box, label_HW, entry)):
                self._draw(label_HW, entry, pair)
        return label_HW

    def _draw(self, label_HW: Array, entry: Table, pair: Pair) -> None:
        try:
            category = entry.get("category_id")
            if category not in self.class_ids:
                raise ValueError(f"no category has the number {category!r:.20}")
            _draw(label_HW, entry.get("segmentation"), self.class_ids[category])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            # What is no ValueError is Python's word for a list or a number that is none.
            wrong = error if type(error) is ValueError else "its segmentation cannot be read"
            raise DataError(
                f"{pair.label}: annotation {entry.get('id')} of {pair.image.name}: {wrong}; "
                "expected a listed category_id, and polygons or run lengths at the image's size"
            ) from error


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


def _looks_like_coco(path: Path) -> str:
    if path.is_file():
        return "COCO's annotations in one file" if _is_coco(path) else ""
    if any(_of_splits(path)):
        return "COCO's annotations, a file a split"
    unsplit = list(_unsplit(path))
    if len(unsplit) > 1:
        return f"COCO's annotations in {len(unsplit)} files"
    return f"COCO's annotations in {unsplit[0].name}, without splits" if unsplit else ""


@recognised_by(_looks_like_coco)
def open_coco(location: str, split: str) -> FileDataset:
    """Open one split of a data set in COCO's format.

    Raises:
        DataError: the JSON is not COCO's.
        MissingSplitError: there is no annotation file for this split.
    """
    source, has_all = _annotation_file(Path(location), split)
    root = Path(location)
    if root.is_file():
        root = source.parent.parent if source.parent.name == "annotations" else source.parent
    table = _load(source)
    reference = source if has_all else _reference(root, split, source)
    try:
        categories = table if reference == source else _load(reference)
        classes, class_ids, notes = _classes(reference, categories)
        if reference != source:
            class_ids = _by_name(source, table, reference, classes)
        dataset = _dataset(root, split, source, table, classes, class_ids, notes)
        return replace(dataset, unsplit=has_all)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{source}: not COCO's format; expected images, annotations and categories as lists "
            "of objects with the fields that COCO has"
        ) from error


def _reference(root: Path, split: str, source: Path) -> Path:
    """Return the file whose categories are the classes of all splits: that of train."""
    return source if split == "train" else dict(_of_splits(root)).get("train", source)


def _load(source: Path) -> Table:
    return only_table(read_json(source), str(source))


def _annotation_file(root: Path, split: str) -> tuple[Path, bool]:
    """Return the file that annotates a split, and whether it annotates the others too."""
    if root.is_file():
        return root, True
    of_splits = dict(_of_splits(root))
    if split in of_splits:
        return of_splits[split], False
    unsplit = [] if of_splits else list(_unsplit(root))
    if len(unsplit) == 1:
        return unsplit[0], True
    if unsplit:
        choices = ", ".join(f"coco:{file}" for file in unsplit)
        raise DataError(f"{root}: {len(unsplit)} annotation files; name one of {choices}")
    expected = ", ".join(_FILES).format(name=split)
    raise MissingSplitError(
        f"{root}: no annotations for split {split!r}; expected {expected}, or one file for all"
    )


def _of_splits(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each split with its annotation file, capital letters or not."""
    files = sorted((*root.glob("annotations/*.json"), *root.glob("*/_annotations.coco.json")))
    for split, names in SPLIT_NAMES.items():
        for pattern in _FILES:
            wanted = [re.escape(pattern.format(name=n)).replace(r"\*", "[^/]*") for n in names]
            expression = re.compile("|".join(wanted), re.IGNORECASE)
            found = [f for f in files if expression.fullmatch(f.relative_to(root).as_posix())]
            if len(found) > 1:
                first, second = (file.relative_to(root).as_posix() for file in found[:2])
                raise DataError(
                    f"{root}: both {first} and {second} are there for {split}; move one away, or "
                    "join them"
                )
            if found:
                yield split, found[0]
                break


def _unsplit(root: Path) -> Iterator[Path]:
    files = sorted((*root.glob("*.json"), *root.glob("annotations/*.json")))
    instances = [file for file in files if file.name.startswith("instances_")]
    yield from (file for file in instances or files if _is_coco(file))


def _is_coco(path: Path) -> bool:
    """Return whether a file begins as COCO's do: lists of objects that name images."""
    listed = ("images", "annotations", "categories", "info", "licenses")
    return path.suffix.lower() == ".json" and (
        begins_with(path, "file_name", "images")
        or begins_with(path, "category_id", "annotations")
        or (begins_with(path, "categories") and any(begins_with(path, key) for key in listed[:2]))
    )


def _classes(
    source: Path, table: Table
) -> tuple[tuple[ClassInfo, ...], dict[Any, int], tuple[str, ...]]:
    """Return the classes, the class id by category id, and what has to be said of them.

    A category that is but the head of others, as Roboflow adds one, is none; one that is called
    background is what no object covers, and void and the like are ignored.
    """
    categories = sorted(table["categories"], key=lambda category: int(category["id"]))
    used = {entry["category_id"] for entry in table["annotations"] if "category_id" in entry}
    used |= {s["category_id"] for e in table["annotations"] for s in e.get("segments_info", ())}
    heads = {category.get("supercategory") for category in categories}
    names: dict[str, Any] = {}
    class_ids: dict[Any, int] = {}
    notes = []
    for category in categories:
        number, name = category["id"], str(category["name"]).strip()
        if name in heads and number not in used and category.get("supercategory") != name:
            notes.append(f"category {name!r} is the head of others and has no object: no class")
        elif is_background(name):
            class_ids[number] = 0
        elif is_ignored(name):
            class_ids[number] = IGNORE_INDEX
        elif name in names:
            raise DataError(
                f"{source}: the categories {names[name]} and {number} are both called {name!r}; "
                "rename one, or give all objects to one of them"
            )
        else:
            names[name] = number
            class_ids[number] = len(names)
    if not 1 <= len(names) < MAX_CLASSES:
        raise DataError(f"{source}: {len(names)} categories; expected 1 to {MAX_CLASSES - 1}")
    named = (ClassInfo(name, generated_color(index)) for index, name in enumerate(names))
    return (BACKGROUND, *named), class_ids, tuple(notes)


def _by_name(
    source: Path, table: Table, reference: Path, classes: Sequence[ClassInfo]
) -> dict[Any, int]:
    """Return the class id by category id of a split whose names are train's, whatever its ids."""
    ids = {info.name: index for index, info in enumerate(classes)}
    _, own_ids, _ = _classes(source, table)
    names = {category["id"]: str(category["name"]).strip() for category in table["categories"]}
    listed = {number for number, class_id in own_ids.items() if 0 < class_id < IGNORE_INDEX}
    if lost := sorted(names[number] for number in listed if names[number] not in ids):
        raise DataError(
            f"{source}: has the category {lost[0]!r}, which {reference} has not; train and the "
            "other splits need the same ones"
        )
    return {n: ids[names[n]] if n in listed else class_id for n, class_id in own_ids.items()}


def _dataset(
    root: Path,
    split: str,
    source: Path,
    table: Table,
    classes: tuple[ClassInfo, ...],
    class_ids: Mapping[Any, int],
    notes: tuple[str, ...],
) -> FileDataset:
    images = _image_files(root, split, source, table)
    make = _panoptic if source.name.startswith("panoptic_") else _instances
    pairs, reader, problems = make(source, table, images, class_ids)
    problems += [
        Problem(str(pair.image), f"listed in {source.name}, no such image")
        for pair in pairs
        if not pair.image.is_file()
    ]
    users = Counter(pair.image for pair in pairs)
    problems += [
        Problem(
            str(pair.image),
            f"is the picture of {users[pair.image]} images of {source.name}, such as "
            f"{pair.name!r}; give each its own file where that says, or join their annotations",
        )
        for pair in pairs
        if users[pair.image] > 1
    ]
    pairs = [pair for pair in pairs if pair.image.is_file() and users[pair.image] == 1]
    return FileDataset(
        "coco",
        split,
        classes,
        "",
        tuple(pairs),
        reader,
        tuple(problems),
        added=(BACKGROUND.name,),
        notes=notes,
    )


def _image_files(root: Path, split: str, source: Path, table: Table) -> dict[Any, Path]:
    """Return the file of each image id, in the first folder that holds the first of them."""
    names = {image["id"]: str(image["file_name"]) for image in table["images"]}
    numbers = Counter(image["id"] for image in table["images"])
    if twice := [number for number, count in numbers.items() if count > 1]:
        raise DataError(
            f"{source}: {len(twice)} ids are of two images, e.g. {twice[0]!r}, so that "
            "nothing says whose an annotation is; number them anew when files are joined"
        )
    counts = Counter(map(_name, names.values()))
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(
            f"{source}: {len(twice)} names are of two images, e.g. {twice[0]!r}, whatever their "
            "suffix; rename one of each"
        )
    subset = source.stem.partition("_")[2]  # "train2017" of instances_train2017
    folders = [root / subset, root / "images" / subset, root / "images", source.parent]
    folders += [root / name for name in SPLIT_NAMES[split]]
    finder = PictureFinder(root, folders)
    missing = folders[0] if folders[0].is_dir() else root
    found = {number: finder.below(name) for number, name in names.items()}
    if not any(found.values()):  # names of another machine: the last part says which picture
        found = {number: finder.find(name) for number, name in names.items()}
    return {
        number: found[number] or missing / (clean_path(name) or "?")
        for number, name in names.items()
    }


def _name(file_name: str) -> str:
    return Path(clean_path(str(file_name))).with_suffix("").as_posix()


def _area(entry: Table) -> float:
    """Return the pixels of an object; of its box where nobody says: smaller ones lie on top."""
    if entry.get("area"):
        return float(entry["area"])
    box: Sequence[float] = entry.get("bbox") or []
    return float(box[2]) * float(box[3]) if len(box) == 4 else 0.0


def _instances(
    source: Path, table: Table, images: Mapping[Any, Path], class_ids: Mapping[Any, int]
) -> tuple[list[Pair], LabelReader, list[Problem]]:
    names = {image["id"]: _name(image["file_name"]) for image in table["images"]}
    sizes = {
        _name(image["file_name"]): (int(image["width"]), int(image["height"]))
        for image in table["images"]
        if image.get("width") and image.get("height")
    }
    objects: dict[str, list[Table]] = {}
    problems = []
    for entry in sorted(table["annotations"], key=lambda entry: -_area(entry)):
        if entry["image_id"] in names:
            objects.setdefault(names[entry["image_id"]], []).append(entry)
        else:
            text = f"annotation {entry.get('id')} is of image {entry['image_id']}, not listed"
            problems.append(Problem(str(source), text))
    pairs = [Pair(names[number], file, source) for number, file in images.items()]
    pairs.sort(key=lambda pair: pair.name)
    refuse_fractions(str(source), _outlines(table["annotations"]))
    return pairs, InstanceReader(objects, class_ids, sizes), problems


def _panoptic(
    source: Path, table: Table, images: Mapping[Any, Path], class_ids: Mapping[Any, int]
) -> tuple[list[Pair], LabelReader, list[Problem]]:
    pairs, segments, problems = [], {}, []
    for entry in table["annotations"]:
        name = _name(entry["file_name"])
        label = source.with_suffix("") / clean_path(entry["file_name"])
        if entry["image_id"] not in images:
            problems.append(Problem(str(label), f"is of image {entry['image_id']}, not listed"))
        elif not label.is_file():
            problems.append(Problem(str(label), f"listed in {source.name}, no such label"))
        else:
            pairs.append(Pair(name, images[entry["image_id"]], label))
            found = entry["segments_info"]
            segments[name] = {int(s["id"]): class_ids[s["category_id"]] for s in found}
    labelled = {entry["image_id"] for entry in table["annotations"]}
    for number in [number for number in images if number not in labelled]:
        problems.append(Problem(str(images[number]), f"image has no annotation in {source.name}"))
    return pairs, PanopticReader(segments), problems


def _draw(label_HW: Array, segmentation: Any, class_id: int) -> None:
    """Draw one object: a list of polygons, or run lengths.

    Raises:
        ValueError: with our words, what is wrong with it.
        TypeError, KeyError, AttributeError: it is of another form altogether.
    """
    if segmentation is None:
        raise ValueError("no outline in its fields, a box at most")
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("it has no outline, a box at most")
        outlines = [_corners(numbers) for numbers in segmentation]
        refuse_outside(label_HW, np.concatenate(outlines))
        for corners_V2 in outlines:
            fill_polygon(label_HW, corners_V2, class_id)
        return
    if list(segmentation["size"]) != list(label_HW.shape):
        size = f"{segmentation['size']}"
        raise ValueError(f"run lengths of size {size:.40}, not {list(label_HW.shape)}")
    label_HW[decode_runs(segmentation["counts"], *label_HW.shape)] = class_id


def _outlines(objects: Sequence[Table]) -> Iterator[Array]:
    """Yield all polygons; for what is none, such as run lengths, infinity: no fraction."""
    for entry in objects:
        parts = entry.get("segmentation")
        for numbers in parts if isinstance(parts, list) else [None]:
            try:
                yield _corners(numbers)
            except (ValueError, OverflowError):
                yield np.array([np.inf])


def _corners(numbers: Any) -> Array:
    try:
        values = np.asarray(numbers, np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ValueError("a polygon with corners that are no numbers") from error
    if values.size % 2:
        raise ValueError(f"a polygon of {values.size} numbers, which are no pairs")
    if values.size < 6 or not np.isfinite(values).all():
        raise ValueError(f"polygon of {values.size // 2} corners")
    return values.reshape(-1, 2)


def _ignore_box(label_HW: Array, entry: Table) -> None:
    """Ignore the box of an object whose outline cannot be drawn."""
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
        ignore_box(label_HW, x, y, x + width, y + height)
    except (KeyError, TypeError, ValueError, OverflowError):
        return  # no box either


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> Array:
    """Return the mask of one object, (height, width) bool.

    Raises:
        ValueError: the runs are negative, unreadable, or do not fill the picture.
    """
    runs = unpack_runs(counts) if isinstance(counts, str) else [*map(_whole, counts)]
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"run lengths have to be 0 or more and add up to {height} x {width}")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(bits.reshape(width, height).T)


def _whole(run: Any) -> Any:
    """Return a number that some programs write as 12.0 as it is meant."""
    return int(run) if isinstance(run, float) and run.is_integer() else run


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
