"""YOLO segment labels as class maps, in the folders that ultralytics describes.

    images/train/NAME.jpg  labels/train/NAME.txt     or  train/images/...  train/labels/...
    classes.txt, one name a line, and/or a YAML with `names:` (needs PyYAML), such as data.yaml; its
    `path:`, `train:`, `val:` and `test:` say where pictures are: folders, or lists of files

The path may be that YAML itself. Where its paths lead out of its folder, as `../train/images` or
`/home/me/datasets/coco8-seg` do, their end is looked for in it: nothing outside is read.

Each line of a label file is "class x1 y1 x2 y2 ...": the corners of one object as fractions of
the image's width and height. Class 0 is "background", every pixel that no object covers; YOLO's
class n is class n + 1. An image without a label file has no objects, as YOLO has it, where others
of its split have one. Later lines are drawn on top. Format: docs.ultralytics.com, "Instance
Segmentation Datasets".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import (
    BACKGROUND,
    generated_color,
    is_background,
    is_ignored,
    read_lines,
)
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    FileDataset,
    Pair,
    Problem,
    Sieve,
    composed,
    file_called,
    find_folders,
    list_files,
    name_within,
    read_text,
)
from fastseg.data.label_codec import fill_polygon, ignore_box
from fastseg.data.named_files import PictureFinder, clean_path, peek
from fastseg.data.pairing import folders_there, split_of
from fastseg.data.recognise import recognised_by
from fastseg.data.splits import SPLIT_NAMES

_LAYOUTS = (("images/{name}", "labels/{name}"), ("{name}/images", "{name}/labels"))
_CANNOT, _NAMES = "cannot read the class names", "expected names: [a, b] or names: {0: a, 1: b}"
_MAX_YAML_BYTES = 1 << 20  # 1,000 names have 20 kB
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
    """Ignore the box of an object whose outline is not known."""
    numbers = [_number(word) for word in line.split()]
    if len(numbers) != 5 or any(n is None or not 0 <= n <= 1 for n in numbers[1:]):
        return
    height, width = label_HW.shape
    x, y, box_width, box_height = (number or 0.0 for number in numbers[1:])
    left, top = (x - box_width / 2) * width, (y - box_height / 2) * height
    ignore_box(label_HW, left, top, left + box_width * width, top + box_height * height)


def _looks_like_yolo(path: Path) -> str:
    if path.is_file():
        return f"YOLO segments of {path.name}" if _is_yaml(path) else ""
    if yaml := _yaml_file(path):
        return f"YOLO segments of {yaml.name}"
    names = [name for of_split in SPLIT_NAMES.values() for name in of_split]
    labels = [labels for _, labels in folders_there(path, _LAYOUTS, names)]
    has_lines = any(file.suffix == ".txt" for folder in labels for file in folder.iterdir())
    return "YOLO segments, text files of polygons" if has_lines else ""


@recognised_by(_looks_like_yolo)
def open_yolo(location: str, split: str) -> FileDataset:
    """Open one split of a data set of YOLO segments.

    Raises:
        DataError: no class names, or not one label file for the pictures.
        MissingSplitError: no folder of images for this split, or test pictures without a label.
    """
    path = Path(location)
    root, yaml = (path.parent, path) if path.is_file() else (path, _yaml_file(path))
    listed = None if path.is_file() else _names_file(root)
    table = _table(yaml, listed)
    if "kpt_shape" in table:
        raise DataError(
            f"{yaml}: has kpt_shape, whose labels are boxes with key points; expected polygons, as "
            "of a YOLO segment export"
        )
    classes, class_ids = _classes(_names(root, yaml, table, listed))
    pairs, labels = _pairs(root, split, table)
    if pairs and not any(pair.label.is_file() for pair in pairs):
        unlabelled = split == "test" and not labels  # as many sets give theirs out
        raise (MissingSplitError if unlabelled else DataError)(
            f"{root}: none of {len(pairs)} pictures of {split} has a label file; expected "
            f"{pairs[0].label} and the like, empty ones where no object is"
        )
    problems = _mismatches(pairs, labels)
    reader, added = SegmentReader(class_ids), (BACKGROUND.name,)
    return FileDataset("yolo", split, classes, "", pairs, reader, problems, added)


def _classes(names: Sequence[str]) -> tuple[tuple[ClassInfo, ...], tuple[int, ...]]:
    """Return the classes, and the class id of each of YOLO's: its background is ours."""
    own = [name for name in names if not is_background(name) and not is_ignored(name)]
    classes = (BACKGROUND, *(ClassInfo(n, generated_color(i)) for i, n in enumerate(own)))
    ids = {name: place for place, name in enumerate(own, start=1)}
    others = {name: IGNORE_INDEX if is_ignored(name) else 0 for name in names if name not in ids}
    return classes, tuple((ids | others)[name] for name in names)


def _pairs(root: Path, split: str, table: Mapping[str, Any]) -> tuple[tuple[Pair, ...], list[Path]]:
    """Return the pictures of a split with their label files, and all label files there are."""
    entries = next((table[key] for key in SPLIT_NAMES[split] if table.get(key)), None)
    if entries is None or not (places := list(_places(root, table, entries))):
        if entries is not None and not folders_there(root, _LAYOUTS, SPLIT_NAMES[split]):
            said = f"{split} is {entries!r:.80}"
            raise MissingSplitError(f"{root}: {said}, no such folder or list in it")
        images, beside = _folders(root, split)
        found = [(name_within(images, file), file) for file in list_files(images, IMAGE_SUFFIXES)]
        pairs = [Pair(name, file, beside / f"{name}.txt") for name, file in found]
        labels = list_files(beside, (".txt",))
        return _as_stored(pairs, labels), labels
    pictures = [file for place in places for file in _pictures(root, place)]
    pairs = [Pair(name_within(root, f), f, _label_of(root, f)) for f in pictures]
    folders = {pair.label.parent for pair in pairs if pair.label.parent.is_dir()}
    labels = sorted({f for folder in folders for f in list_files(folder, (".txt",))})
    pairs_stored = _as_stored(pairs, labels)
    if any(place.is_file() for place in places):  # a list may leave pictures out
        lost = {str(p.label).lower() for p in pairs_stored if not p.label.is_file()}
        labels = [file for file in labels if str(file).lower() in lost]
    return pairs_stored, labels


def _as_stored(pairs: Sequence[Pair], labels: Sequence[Path]) -> tuple[Pair, ...]:
    """Return pairs with the label files that are there, whichever system wrote their accents."""
    names = {composed(str(file)): file for file in labels}
    stored = {composed(str(file.with_suffix(".txt"))): file for file in labels} | names  # or .TXT
    found = (stored.get(composed(str(pair.label)), pair.label) for pair in pairs)
    return tuple(replace(pair, label=label) for pair, label in zip(pairs, found, strict=True))


def _places(root: Path, table: Mapping[str, Any], entries: Any) -> Iterator[Path]:
    """Yield the folders and lists that a YAML names for a split, where they are in its folder.

    Raises:
        DataError: some are there and others are not.
    """
    wanted, missing, found_any = entries if isinstance(entries, list) else [entries], [], False
    parts = clean_path(str(table.get("path") or "")).split("/")
    bases = ["/".join(parts[skip:]) for skip in range(len(parts) + 1)]  # the end may be in here
    for entry in wanted:
        end = clean_path(str(entry))
        found = (root / start / end for start in bases)
        if place := next((place for place in found if place.exists()), None):
            found_any = True
            yield place
        else:
            missing.append(str(entry))
    if found_any and missing:
        raise DataError(
            f"{root}: its YAML names {missing[0]!r:.80}, no such folder or list in it, beside "
            "others that are there; correct the name, letter case too, or take it out"
        )


def _pictures(root: Path, place: Path) -> list[Path]:
    """Return the pictures of a folder, those in sub-folders too, or of a list of files."""
    if place.is_dir():
        return list_files(place, IMAGE_SUFFIXES)
    finder = PictureFinder(root, [place.parent])
    lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    found = [finder.below(line) for line in lines]
    if lost := [line for line, file in zip(lines, found, strict=True) if file is None]:
        raise DataError(
            f"{place}: lists {lost[0]!r} and {len(lost) - 1} more, no such picture; "
            "make the list anew, or take it out of the YAML, and the folders of the splits count"
        )
    return [file for file in found if file]


def _label_of(root: Path, picture: Path) -> Path:
    """Return the label file of a picture: the last folder called images becomes labels."""
    parts = list(picture.relative_to(root).with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return root.joinpath(*parts)


def _mismatches(pairs: Sequence[Pair], labels: Sequence[Path]) -> tuple[Problem, ...]:
    """Return the labels without an image, and the images that share a label with another."""
    known: dict[Path, Path] = {}
    problems = []
    for pair in pairs:
        if pair.label in known:
            text = f"has the same name as {known[pair.label].name}"
            problems.append(Problem(str(pair.image), text))
        known.setdefault(pair.label, pair.image)
    strays = (file for file in labels if file not in known)
    problems += [Problem(str(file), f"label has no image {file.stem}") for file in strays]
    return tuple(problems)


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    if found := find_folders(root, _LAYOUTS, SPLIT_NAMES[split]):
        return found
    expected = " or ".join(" + ".join(layout) for layout in _LAYOUTS).format(name=split)
    raise MissingSplitError(f"{root}: no split {split!r}; expected the folders {expected}")


def _names_file(root: Path) -> Path | None:
    file = file_called(root, "classes.txt")
    return file if file.is_file() else None


def _table(yaml: Path | None, listed: Path | None) -> Mapping[str, Any]:
    """Return what a YAML says; nothing where it cannot be read and classes.txt has the names."""
    try:
        table = _read_yaml(yaml) if yaml else {}
        if yaml and listed:
            _yaml_names(yaml, table)
    except DataError:
        if listed is None:
            raise
        return {}
    return table


def _names(
    root: Path, yaml: Path | None, table: Mapping[str, Any], listed: Path | None
) -> list[str]:
    """Return the class names of classes.txt, or of a YAML."""
    source = listed or yaml or root / "data.yaml"
    names = _listed_names(listed) if listed else _yaml_names(source, table or _read_yaml(source))
    if listed and table and yaml and not _alike(names, others := _yaml_names(yaml, table)):
        raise DataError(
            f"{listed}: has the classes {', '.join(names)!s:.80}, {yaml.name} has "
            f"{', '.join(others)!s:.80}; which of them number the labels is not clear: move one "
            "file away"
        )
    if not 1 <= len(names) < MAX_CLASSES or len(set(names)) < len(names):
        wanted = f"expected 1 to {MAX_CLASSES - 1} different names"
        raise DataError(f"{source}: {wanted}, got {len(names)}: {names!s:.80}")
    return names


def _listed_names(listed: Path) -> list[str]:
    lines = read_lines(listed)
    if [line.value for line in lines] != list(range(len(lines))):
        raise DataError(f"{listed}: YOLO's classes are numbered from 0, without a gap")
    return [line.name for line in lines]


def _alike(names: Sequence[str], others: Sequence[str]) -> bool:
    return [name.lower() for name in names] == [name.lower() for name in others]


def _yaml_file(root: Path) -> Path | None:
    """Return data.yaml, or the first other YAML that names classes and splits."""
    if (file := root / "data.yaml").is_file():
        return file
    found = sorted((*root.glob("*.yaml"), *root.glob("*.yml")))
    return next((file for file in found if _is_yaml(file)), None)


def _is_yaml(path: Path) -> bool:
    """Return whether a file has the keys of a data.yaml at the beginning of lines."""
    content = peek(path, _MAX_YAML_BYTES + 1) if path.suffix.lower() in (".yaml", ".yml") else b""
    lines = content.splitlines() if len(content) <= _MAX_YAML_BYTES else []
    return any(line.startswith(b"names:") for line in lines) and any(
        split_of(line.partition(b":")[0].decode("ascii", "replace")) for line in lines
    )


def _read_yaml(source: Path) -> Mapping[str, Any]:
    try:
        import yaml  # type: ignore[import-untyped]  # only where data.yaml is read
    except ImportError as error:
        raise DataError(
            f"{source}: reading it needs PyYAML (pip install pyyaml); or write the class names "
            "to a classes.txt beside it, one a line"
        ) from error
    text = read_text(source)
    if len(text) > _MAX_YAML_BYTES:
        raise DataError(f"{source}: has {len(text)} letters; at most {_MAX_YAML_BYTES} are read")
    try:
        # Texts alone: dates and numbers of any size fail in too many ways. With aliases a few
        # lines are a table of any size.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise yaml.YAMLError("it has aliases, *name, which are not read")
        table = yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{source}: {_CANNOT} ({why}); {_NAMES}") from error
    told = table if isinstance(table, dict) else {}
    told = {key: value for key, value in told.items() if value not in ("null", "~")}
    if "names" not in told:
        raise DataError(f"{source}: {_CANNOT} (it has no names); {_NAMES}")
    return told


def _yaml_names(source: Path, table: Mapping[str, Any]) -> list[str]:
    """Return `names:` of a data.yaml, a list or a table by number."""
    names = table["names"]
    numbered = isinstance(names, dict) and set(names) == set(map(str, range(len(names))))
    ordered = [names[str(i)] for i in range(len(names))] if numbered else names
    if not isinstance(ordered, list) or any(isinstance(name, dict | list) for name in ordered):
        raise DataError(f"{source}: {_CANNOT} ({names!s:.60}); {_NAMES}")
    return [str(name).strip() for name in ordered]
