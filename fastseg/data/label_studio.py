"""Label Studio's own JSON: brush masks in its run lengths, polygons and rectangles.

    NAME.json         the export "JSON" or "JSON-MIN", one list of tasks
    PICTURE           somewhere below; the JSON names it as /data/upload/1/0a1b2c3d-PICTURE

(Its COCO export is of kind `coco`.) Of several annotations of a task the last that was not
cancelled counts. Tasks nobody annotated are left out, which a note says.

The run lengths are those of thi.ng's rle-pack: bits, most significant first. 32 bits say how many
values follow, 5 the bits of a value less 1, four times 4 the bits of a run's length less 1. Then,
run by run: 1 bit whether the values of the run are equal, 2 which of the four lengths is used, the
run's length less 1, and its one value or all of them. The values are R, G, B and alpha of each
pixel; where alpha is above 0 the brush was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.data.class_list import BACKGROUND
from fastseg.data.dataset import Array, DataError
from fastseg.data.file_dataset import IMAGE_SUFFIXES, FileDataset, Pair, Problem
from fastseg.data.named_files import PictureFinder, begins_with, clean_path, peek, read_json
from fastseg.data.recognise import recognised_by
from fastseg.data.shapes import MAX_SHAPES, Shape, ShapeReader, bitmap, box, name_classes, polygon

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels")
_MAX_PIXELS = 1 << 26  # four bytes each while they are decoded
_CHANNELS, _ALPHA = 4, 3
_PERCENT = 100.0
Table = Mapping[str, Any]


def _looks_like_label_studio(path: Path) -> str:
    found = _files(path)
    return f"Label Studio's {found[0].name}" if len(found) == 1 else ""


@recognised_by(_looks_like_label_studio)
def open_label_studio(location: str, split: str) -> FileDataset:
    """Open one split of a Label Studio export, by a hash of the names.

    Raises:
        DataError: there is no such JSON, there are several, or it is of another form.
    """
    path = Path(location)
    found = [path] if path.is_file() else _files(path)
    if len(found) != 1:
        raise DataError(
            f"{path}: {len(found)} JSON files of Label Studio here; expected one, or its name"
        )
    source = found[0]
    root = source.parent
    tasks = read_json(source)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{source}: expected a list of tasks, as the exports JSON and JSON-MIN are")
    results = [(_picture_name(task), _results(task)) for task in tasks]
    _refuse_several_pictures(source, [(t, r[1]) for t, r in zip(tasks, results, strict=True)])
    labels = [_label(result) for _, marks in results for result in marks]
    classes, ids = name_classes(labels, str(source))
    empty = [_is_empty(task) for task in tasks]
    kept = [item for item, is_empty in zip(results, empty, strict=True) if item[1] or is_empty]
    pairs, shapes, problems = _pairs(root, source, kept)
    left = len(tasks) - len(kept)
    others = Counter(
        str(m.get("type"))[:40] for task in tasks for m in _marks(task) if not _kind(m)
    )
    notes = [f"{left} tasks have no annotation and are left out"] if left else []
    notes += [
        f"{n} marks of type {kind} are no masks and are left out" for kind, n in others.items()
    ]
    return FileDataset(
        "label-studio",
        split,
        classes,
        "",
        tuple(pairs),
        ShapeReader(lambda pair: shapes[pair.name], ids),
        tuple(problems),
        added=(BACKGROUND.name,),
        unsplit=True,
        notes=tuple(notes),
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" and _is_label_studio(path) else []
    return [file for file in sorted(path.glob("*.json")) if _is_label_studio(file)]


def _is_label_studio(path: Path) -> bool:
    is_list = peek(path, 64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    # A brush's run lengths come before its kind, and may fill the head.
    known = (("type", "result"), ("annotations", "result"), *((kind,) for kind in _KINDS))
    return is_list and any(begins_with(path, *words) for words in known)


def _picture_name(task: Table) -> str:
    """Return what a task says of its picture: file_upload, or the one value that is a path."""
    paths = [text for text in _texts(task) if "." in clean_path(text).rpartition("/")[2]]
    paths.sort(key=lambda text: not _is_picture(text))
    named = task.get("file_upload")
    return named if isinstance(named, str) and named else paths[0] if paths else ""


def _texts(task: Table) -> list[str]:
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    return [value for value in (data or {}).values() if isinstance(value, str)]


def _is_picture(text: str) -> bool:
    return clean_path(text).lower().endswith(IMAGE_SUFFIXES)


def _refuse_several_pictures(
    source: Path, results: Sequence[tuple[Table, Sequence[Table]]]
) -> None:
    """Refuse marks on another picture of a task than the one taken, or on more than one."""
    for task, marks in results:
        tags = sorted({str(mark["to_name"]) for mark in marks if mark.get("to_name")})
        pictures = {*filter(_is_picture, _texts(task))}
        data = task["data"] if isinstance(task.get("data"), dict) else {}
        of_tags = [data[tag] for tag in tags if data.get(tag) in [*pictures]]
        others = [name for name in of_tags if name != _picture_name(task)]
        if len(pictures) > 1 and (len(tags) > 1 or others):
            raise DataError(
                f"{source}: has marks on {' and '.join(tags)}, but a task has several pictures; "
                "export a project of one picture a task"
            )


def _results(task: Table) -> list[Table]:
    """Return the marks of a task that are of a kind that has pixels."""
    return [mark for mark in _marks(task) if _kind(mark)]


def _is_empty(task: Table) -> bool:
    """Return whether somebody submitted a task as a picture with nothing on it."""
    valid = _submitted(task) or []
    return bool(valid) and valid[-1].get("result") == []


def _submitted(task: Table) -> list[Table] | None:
    """Return the annotations that were not cancelled; None in JSON-MIN, which has none."""
    annotations = task.get("annotations") or task.get("completions")
    if not isinstance(annotations, list):
        return None
    return [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]


def _marks(task: Table) -> list[Table]:
    valid = _submitted(task)
    if valid is not None:
        marks = valid[-1].get("result") if valid else []
    else:  # JSON-MIN: the marks of each tag are a list of their own
        marks = [m for value in task.values() if isinstance(value, list) for m in value]
    if not isinstance(marks, list) or len(marks) > MAX_SHAPES:
        return []
    return [mark for mark in marks if isinstance(mark, dict)]


def _value(mark: Table) -> Table:
    value = mark.get("value")
    return value if isinstance(value, dict) else mark


def _kind(mark: Table) -> str:
    return next((kind for kind in _KINDS if _value(mark).get(kind)), "")


def _label(mark: Table) -> str:
    named = _value(mark)[_kind(mark)]
    return str(named[0] if isinstance(named, list) else named)


def _pairs(
    root: Path, source: Path, results: Sequence[tuple[str, list[Table]]]
) -> tuple[list[Pair], dict[str, tuple[list[Shape], tuple[int, int] | None]], list[Problem]]:
    finder = PictureFinder(root, [root / "images"])
    pairs, shapes, problems = [], {}, []
    names = Counter(Path(clean_path(named)).stem for named, _ in results)
    for named, marks in results:
        name = Path(clean_path(named)).stem
        picture = finder.find(named)
        if picture is None or names[name] > 1:
            why = "which is not there" if picture is None else "as another task does"
            problems.append(Problem(str(source), f"names the picture {named!r}, {why}"))
            continue
        size = _size(marks[0]) if marks else None
        pairs.append(Pair(name, picture, source))
        shapes[name] = [_shape(mark, size) for mark in marks], size
    return pairs, shapes, problems


def _size(mark: Table) -> tuple[int, int] | None:
    sides = mark.get("original_width"), mark.get("original_height")
    is_size = all(type(side) is int and side > 0 for side in sides)
    return sides if is_size and sides[0] * sides[1] <= _MAX_PIXELS else None  # type: ignore[return-value, operator]  # two numbers


def _shape(mark: Table, size: tuple[int, int] | None) -> Shape:
    label, value = _label(mark), _value(mark)
    if size is None:
        return Shape(label, lambda *_: _refuse("has no original_width and original_height"))
    turned = value.get("rotation") and _kind(mark) != "rectanglelabels"
    if mark.get("image_rotation") or turned:
        return Shape(label, lambda *_: _refuse("is rotated, which is not known to fastseg"))
    if _kind(mark) == "brushlabels":
        return bitmap(label, lambda: decode_brush(value.get("rle"), *size))
    scale = np.array(size) / _PERCENT
    if _kind(mark) == "polygonlabels":
        return polygon(label, _scaled(value.get("points"), scale))
    try:
        return box(label, _rectangle(value, scale))
    except (KeyError, TypeError, ValueError, OverflowError):
        return Shape(label, lambda *_: _refuse("has no x, y, width and height"))


def _rectangle(value: Table, scale: Array) -> Array:
    """Return the corners of a rectangle, which is turned clockwise about its first one."""
    degrees = value.get("rotation") or 0
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    sides_42 = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (value["width"], value["height"])
    first_2 = np.array((value["x"], value["y"]), np.float64)
    corners_42: Array = first_2 * scale + sides_42 * scale @ np.array([(cos, sin), (-sin, cos)])
    return corners_42


def _scaled(points: Any, scale: Array) -> Any:
    try:
        return np.asarray(points, np.float64) * scale
    except (TypeError, ValueError, OverflowError):
        return points  # refused where it is drawn


def decode_brush(numbers: Any, width: int, height: int) -> Array:
    """Return the mask of a brush, (height, width) bool.

    Args:
        numbers: the bytes of its run lengths.
        width, height: of the picture.

    Raises:
        ValueError: they are no bytes, end early, or hold another number of pixels.
    """
    if not isinstance(numbers, list) or any(
        type(n) is not int or not 0 <= n < 256 for n in numbers
    ):
        raise ValueError("has no run lengths of numbers from 0 to 255")
    values = _unpack(bytes(numbers), width * height * _CHANNELS)
    return np.asarray(values.reshape(height, width, _CHANNELS)[:, :, _ALPHA] > 0)


def _unpack(data: bytes, expected: int) -> Array:
    """Return the values of run lengths, as many as expected."""
    bits = _Bits(data)
    count, value_bits = bits.read(32), bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    if count != expected:
        raise ValueError(f"has {count} values, not the {expected} of its picture")
    values: Array = np.zeros(count, np.uint8 if value_bits <= 8 else np.uint32)
    place = 0
    while place < count:
        equal = bits.read(1)
        end = place + bits.read(length_bits[bits.read(2)]) + 1
        if end > count:
            raise ValueError("has a run that leaves the picture")
        if equal:
            values[place:end] = bits.read(value_bits)
        else:
            values[place:end] = bits.read_many(value_bits, end - place)
        place = end
    return values


class _Bits:
    """Reads numbers of some bits each from bytes, most significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._length = data, 0, 8 * len(data)

    def read(self, width: int) -> int:
        """Return the next number of so many bits."""
        start, end = self._place, self._place + width
        if end > self._length:
            raise ValueError("has run lengths that end early")
        first, last = start // 8, (end + 7) // 8
        number = int.from_bytes(self._data[first:last], "big")
        self._place = end
        return number >> (8 * last - end) & (1 << width) - 1

    def read_many(self, width: int, count: int) -> Array:
        """Return the next numbers of so many bits each."""
        return np.array([self.read(width) for _ in range(count)], np.uint32)


def _refuse(why: str) -> None:
    raise ValueError(why)
