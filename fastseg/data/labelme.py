"""LabelMe's JSON files, one beside each picture.

    NAME.jpg  NAME.json        in one folder, in sub-folders, or in train/, val/, test/
    labels.txt                 the list that labelme --labels takes: then its order counts

A JSON names its picture as `imagePath`; one that is gone from there is looked for beside the JSON.
Shapes: polygon, rectangle, circle, linestrip, line, point and mask. Lines and points have a width
of their own in labelme2voc, 10 and 5 pixels, and so here. Later shapes are on top, "_background_"
cuts out, "__ignore__" is ignored. Pictures without a JSON are not labelled yet and are left out,
which a note says.
Format: github.com/wkentaro/labelme, label_file.py.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastseg_runtime.arrays.image import why_refused

from fastseg.data.class_list import BACKGROUND
from fastseg.data.dataset import Array, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    FileDataset,
    Pair,
    Problem,
    file_called,
    list_files,
    name_within,
    read_text,
)
from fastseg.data.named_files import (
    PictureFinder,
    begins_with,
    only_table,
    peek,
    read_json,
)
from fastseg.data.pairing import subfolders_by_split
from fastseg.data.recognise import recognised_by
from fastseg.data.shapes import (
    MAX_SHAPES,
    Shape,
    ShapeReader,
    bitmap,
    box,
    disc,
    name_classes,
    polygon,
    refuse_shapes_in_fractions,
    stroke,
)

_MAX_BYTES = 256 << 20  # the picture itself may be in the JSON, in base64
_LOOKED_AT = 20  # JSON files that are looked into to recognise the tool
_LABELS = "labels.txt"
_LINE_PX, _POINT_PX = 10, 5  # labelme.utils.shape_to_mask
_MAX_MASK_BYTES = 64 << 20


def _looks_like_labelme(path: Path) -> str:
    files = [file for folder in _folders(path).values() for file in _annotations(folder)]
    is_labelme = any(
        begins_with(file, "shapes") or _ends_with_shapes(file) for file in files[:_LOOKED_AT]
    )
    return "LabelMe's JSON files" if is_labelme else ""


@recognised_by(_looks_like_labelme)
def open_labelme(location: str, split: str) -> FileDataset:
    """Open one split of a folder that LabelMe worked on.

    Raises:
        DataError: there is no JSON of LabelMe's, or one that cannot be read.
        MissingSplitError: there are split folders, but not this one.
    """
    root = Path(location)
    folders = _folders(root)
    files = {name: list(_annotations(folder)) for name, folder in folders.items()}
    if not any(files.values()):
        raise DataError(f"{root}: no JSON of LabelMe here; expected NAME.json beside NAME.jpg")
    if split not in folders and "" not in folders:
        raise MissingSplitError(f"{root}: no split {split!r}; expected a folder of that name")
    tables = {file: _read(file, _changed_ns(file)) for found in files.values() for file in found}
    labels = [shape["label"] for table in tables.values() for shape in table["shapes"]]
    classes, ids = name_classes(labels, str(root), _listed(root))
    folder, chosen = folders.get(split, root), files.get(split, files.get("", []))
    pairs, problems, notes = _pairs(folder, chosen, tables)
    shapes = (shape for file in chosen for shape in _shapes(tables[file])[0])
    refuse_shapes_in_fractions(str(folder), shapes)
    reader = ShapeReader(lambda pair: _shapes(tables[pair.label]), ids)
    return FileDataset(
        "labelme",
        split,
        classes,
        "",
        tuple(pairs),
        reader,
        tuple(problems),
        added=(BACKGROUND.name,),
        unsplit=split not in folders,
        notes=notes,
    )


def _folders(root: Path) -> dict[str, Path]:
    by_split = subfolders_by_split(root)
    return {split: f for split, f in by_split.items() if any(_annotations(f))} or {"": root}


def _annotations(folder: Path) -> Sequence[Path]:
    return list_files(folder, (".json",)) if folder.is_dir() else []


def _ends_with_shapes(path: Path) -> bool:
    """Return whether the last bytes name a picture: before them may be the picture itself."""
    tail = peek(path, 4096, at_end=True)
    return b'"imagePath"' in tail and b'"imageHeight"' in tail


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0  # what is not there, _read refuses


@lru_cache(maxsize=1 << 16)
def _read(path: Path, mtime_ns: int) -> Mapping[str, Any]:
    """Return a JSON without the picture in it, its parts checked; each split asks for all."""
    table = only_table(read_json(path, _MAX_BYTES), str(path))
    shapes = table.get("shapes")
    if not isinstance(shapes, list) or len(shapes) > MAX_SHAPES:
        raise DataError(f"{path}: no JSON of LabelMe; expected 'shapes' as a list, 'imagePath'")
    for number, shape in enumerate(shapes, start=1):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{path}: shape {number} has no label")
    return {key: value for key, value in table.items() if key != "imageData"}


def _listed(root: Path) -> list[str]:
    path = file_called(root, _LABELS)
    lines = read_text(path).splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip()]


def _pairs(
    folder: Path, files: Sequence[Path], tables: Mapping[Path, Mapping[str, Any]]
) -> tuple[list[Pair], list[Problem], tuple[str, ...]]:
    pairs, problems, named_by = [], [], dict[Path, list[Path]]()
    pictures = list_files(folder, IMAGE_SUFFIXES)
    beside = {picture.with_suffix(""): picture for picture in pictures}
    for file in files:
        named = str(tables[file].get("imagePath") or "")
        finder = PictureFinder(folder, [file.parent])
        picture = finder.below(named) or beside.get(file.with_suffix("")) or finder.find(named)
        if picture is None:
            problems.append(Problem(str(file), f"names the picture {named!r}, which is not there"))
        else:
            named_by.setdefault(picture, []).append(file)
    for picture, (file, *others) in named_by.items():
        if others:
            problems += _shared(picture, [file, *others], beside)
        else:
            pairs.append(Pair(name_within(folder, file), picture, file))
    left = len(pictures) - len(named_by)
    note = f"{left} pictures have no JSON yet and are left out"
    return pairs, problems, (note,) if left else ()


def _shared(picture: Path, files: Sequence[Path], beside: Mapping[Path, Path]) -> Iterator[Problem]:
    """Yield what is wrong with JSONs that name one picture: nothing says whose shapes are right."""
    for file in files:
        other = next(other for other in files if other != file)
        text = f"names the picture {picture.name}, as {other.name} does"
        own = beside.get(file.with_suffix(""), picture)
        hint = "" if own == picture else f"; {own.name} is beside it: write that as its imagePath"
        yield Problem(str(file), text + hint)


def _shapes(table: Mapping[str, Any]) -> tuple[list[Shape], tuple[int, int] | None]:
    size = table.get("imageWidth"), table.get("imageHeight")
    known = size if all(type(side) is int for side in size) else None
    return [_shape(shape) for shape in table["shapes"]], known  # type: ignore[return-value]  # two


def _shape(table: Mapping[str, Any]) -> Shape:
    label, points = table["label"], table.get("points")
    match table.get("shape_type") or "polygon":
        case "polygon":
            return polygon(label, points)
        case "rectangle":
            return box(label, points)
        case "circle":
            return disc(label, points)
        case "line" | "linestrip":
            return stroke(label, points, _LINE_PX)
        case "point" | "points":
            return stroke(label, points, 2 * _POINT_PX)
        case "mask":
            return _mask(label, points, table.get("mask"))
        case other:
            why = f"is a {other!s:.40}, not known to fastseg"
            return Shape(label, lambda *_: _refuse(why), points)


def _mask(label: str, points: Any, encoded: Any) -> Shape:
    """Return a bitmap in base64, whose points are its first and its last pixel in the picture."""
    try:
        left, top, right, bottom = (round(float(v)) for v in (*points[0], *points[-1]))
    except (TypeError, ValueError, IndexError, OverflowError):
        return Shape(label, lambda *_: _refuse("has no points of its mask's corners"))
    around = [[left, top], [right + 1, bottom + 1]]
    return bitmap(label, lambda: _decode(encoded), left, top, around)


def _decode(encoded: Any) -> Array:
    if not isinstance(encoded, str) or len(encoded) > _MAX_MASK_BYTES:
        raise ValueError("has no mask in base64")
    try:
        data = base64.b64decode(encoded, validate=True)
        mask_hw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        raise ValueError(f"has a mask that is no picture: {why_refused(error)}") from error
    except (binascii.Error, ValueError):
        mask_hw = None
    if mask_hw is None:
        raise ValueError("has a mask that is no picture")
    return mask_hw > 0


def _refuse(why: str) -> None:
    raise ValueError(why)
