"""classes.txt: the names, stored values and colours of the classes of a folder of labels.

Each line is "index name R G B" or "index name" (the name may hold spaces), or every line is just
a name, numbered from 0. "#" starts a comment. Classes called void, ignore, unlabeled or unlabelled
are ignored in training and in metrics, and so is the stored value 255. Classes without a colour
get one of the Pascal VOC colour map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo, numbered_classes

from fastseg.data.dataset import MAX_CLASSES, DataError
from fastseg.data.file_dataset import read_text
from fastseg.data.label_codec import Color, LabelCodec

IGNORED_NAMES = ("void", "ignore", "unlabeled", "unlabelled")


@dataclass(frozen=True)
class ClassLine:
    """One class as the file names it; value is what index PNGs store."""

    value: int
    name: str
    color: Color


def read_classes(path: Path) -> tuple[tuple[ClassInfo, ...], LabelCodec]:
    """Return the classes of a classes.txt in the order of their values, and how to decode labels.

    Raises:
        DataError: the file is missing, or a line is not of the form above.
    """
    lines = _parse(path)
    kept = [line for line in lines if line.name.lower() not in IGNORED_NAMES]
    if not 1 <= len(kept) <= MAX_CLASSES:
        raise DataError(f"{path}: {len(kept)} classes; expected 1 to {MAX_CLASSES}")
    id_by_value = {line.value: index for index, line in enumerate(kept)}
    ids = {line.value: id_by_value.get(line.value, IGNORE_INDEX) for line in lines}
    colors = {line.color: ids[line.value] for line in lines}
    classes = tuple(ClassInfo(line.name, line.color) for line in kept)
    return classes, LabelCodec(ids | {IGNORE_INDEX: IGNORE_INDEX}, colors)


def generated_color(index: int) -> Color:
    """Return a colour for a class without one: of the Pascal VOC colour map, after its black."""
    return numbered_classes(index + 2)[-1].color


def _parse(path: Path) -> list[ClassLine]:
    text = read_text(path, "; expected lines 'index name R G B'")
    rows = [row for row in (line.partition("#")[0].split() for line in text.splitlines()) if row]
    numbered = bool(rows) and rows[0][0].isdecimal()
    lines = [_line(path, row, index, numbered) for index, row in enumerate(rows)]
    for field, shared in (("index", "value"), ("name", "name"), ("colour", "color")):
        values = [getattr(line, shared) for line in lines]
        if twice := [value for value in values if values.count(value) > 1]:
            raise DataError(f"{path}: two classes have the {field} {twice[0]}; make them differ")
    return sorted(lines, key=lambda line: line.value)


def _line(path: Path, row: list[str], index: int, numbered: bool) -> ClassLine:
    if not numbered:
        return ClassLine(index, " ".join(row), generated_color(index))
    numbers = [int(word) if word.isdecimal() else -1 for word in row]
    value, color = numbers[0], tuple(numbers[-3:])
    has_color = len(row) >= 5 and min(color) >= 0
    name = " ".join(row[1:-3] if has_color else row[1:])
    if not name or not 0 <= value <= IGNORE_INDEX or (has_color and max(color) > 255):
        raise DataError(
            f"{path}: cannot read the line {' '.join(row)!r}; expected 'index name R G B' with "
            "numbers from 0 to 255"
        )
    return ClassLine(value, name, color if has_color else generated_color(index))  # type: ignore[arg-type]  # three numbers
