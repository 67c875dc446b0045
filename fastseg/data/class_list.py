"""classes.txt: the names, stored values and colours of the classes of a folder of labels.

Each line is "index name R G B" or "index name" (the name may hold spaces), or every line is just
a name, numbered from 0. "#" starts a comment. Between the parts may stand commas, semicolons, tabs
or colons, the index may be left out before "name R G B", and the first line may say what the
columns are: so Roboflow's _classes.csv, CVAT's labelmap.txt and a class_dict.csv are read as they
are. A line that can mean two things is refused.

Classes called void, ignore, unlabeled or unlabelled, between underscores too, are ignored in
training and in metrics, and so is the stored value 255 unless a line gives it to a class. LabelMe's
"__ignore__", first of names alone, has no number. A list of one class means that against
"background", the value 0. Classes without a colour get one of the Pascal VOC colour map to be
shown in; labels are read by colours that the file names, never by these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastseg_runtime.arrays.terminal import is_plain
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, MAX_TEXT, ClassInfo, numbered_classes

from fastseg.data.dataset import MAX_CLASSES, DataError
from fastseg.data.file_dataset import read_text
from fastseg.data.label_codec import Color, LabelCodec, of_16_bits

MOST_SHOWN = 4  # names in a line
IGNORED_NAMES = ("void", "ignore", "unlabeled", "unlabelled")
_LABELME_IGNORED = "__ignore__"
BACKGROUND = ClassInfo("background", (0, 0, 0))
_SEPARATOR = re.compile(r"[ ]*[,;:=|\t][ ]*")  # becomes a tab
_COLUMNS = re.compile(
    r"(?:(?P<index>[0-9]+)[\t ]+)?(?P<name>.*?[^0-9\t ].*?)"
    r"(?:[\t ]+(?P<red>[0-9]+)[\t ]+(?P<green>[0-9]+)[\t ]+(?P<blue>[0-9]+))?\t*"
)
_LABELMAP = re.compile(r"([^:]+:[0-9]+,[0-9]+,[0-9]+):[^:]*:[^:]*")  # the rest is parts, actions
_COUNT = re.compile(r"(.*?)((?:\s+[0-9]+)+)")  # a name that ends with numbers
_OTHER_FORMAT = re.compile(r'[][{}"<>]|^-\s|.#[0-9a-fA-F]{6}\b')  # JSON, YAML, XML, hex colours
_NUMBERING = re.compile(r"[-0-9.()]+\s.*")  # such as "1. road"
_MAX_LINE = 300  # characters: a list of classes has none that long
_HEADER_WORD = re.compile(
    "names?|class|classes|labels?|category|index|idx|id|value|pixel|colou?r|rgb|[rgb]|red|green|blue"
)
_HEADER_ALONE = re.compile("names?|class|classes|labels?|categor(y|ies)")


@dataclass(frozen=True)
class ClassLine:
    """One class as the file names it.

    Attributes:
        value: what index PNGs store.
        name: of the class.
        color: None where the file names none.
        counted: whether the value is but the place in the file.
    """

    value: int
    name: str
    color: Color | None
    counted: bool


def check_names(place: str, classes: Sequence[ClassInfo]) -> None:
    """Refuse names that no bundle can hold, before anything is trained for them.

    Raises:
        DataError: one is blank, too long or holds control characters.
    """
    for name in (entry.name for entry in classes):
        if not (name.strip() and is_plain(name, MAX_TEXT)):
            raise DataError(
                f"{place}: the class {name!r:.80} has {len(name)} characters; expected a name of 1 "
                f"to {MAX_TEXT}, none of them a control character; rename it"
            )


def class_mismatch(known: Sequence[ClassInfo], data: str, given: Sequence[ClassInfo]) -> str:
    """Return why labels of some classes say nothing of a network, "" where they can.

    Other names are no reason, since a list of classes may rename them; a name that both have is,
    where it stands elsewhere, in capital letters or not.

    Args:
        known: the network's.
        data: what the labels are called.
        given: theirs.
    """
    ours, theirs = ([entry.name for entry in classes] for classes in (known, given))
    if len(ours) != len(theirs):
        return f"{data} has {len(theirs)} classes, the network {len(ours)}"
    alike = [[name.strip().lower() for name in names] for names in (ours, theirs)]
    if any(len({*names}) < len(names) for names in alike):  # capital letters tell some apart
        alike = [ours, theirs]
    places = {name: place for place, name in enumerate(alike[0])}
    if alike[0] != alike[1] and any(places.get(n, at) != at for at, n in enumerate(alike[1])):
        return (
            f"{data} has the network's classes in another order, {', '.join(theirs)} instead of "
            f"{', '.join(ours)}; change the order of the class list"
        )
    return ""


def renamed_classes(known: Sequence[ClassInfo], data: str, given: Sequence[ClassInfo]) -> str:
    """Return which classes labels and a network call otherwise, one line; "" where none is.

    Nobody but the user can tell whether these are the same things.
    """
    pairs = zip((c.name for c in known), (c.name for c in given), strict=False)
    other = [f"{ours} is {theirs}" for ours, theirs in pairs if ours != theirs]
    shown = ", ".join(other[:MOST_SHOWN]) + (", ..." if len(other) > MOST_SHOWN else "")
    return f"{data} calls classes otherwise; taken as they stand: {shown}" if other else ""


def read_classes(path: Path) -> tuple[tuple[ClassInfo, ...], LabelCodec]:
    """Return the classes of a classes.txt in the order of their values, and how to decode labels.

    Raises:
        DataError: the file is missing, or a line is not of the form above.
    """
    lines = _numbered_as_labelme(read_lines(path))
    kept = [line for line in lines if not is_ignored(line.name)]
    if not 1 <= len(kept) <= MAX_CLASSES:
        raise DataError(f"{path}: {len(kept)} classes; expected 1 to {MAX_CLASSES}")
    alone = len(kept) == 1
    if alone:
        lines = _against_background(path, lines, kept[0])
        kept = [line for line in lines if not is_ignored(line.name)]
    id_by_value = {line.value: index for index, line in enumerate(kept)}
    ids = {line.value: id_by_value.get(line.value, IGNORE_INDEX) for line in lines}
    colors = {line.color: ids[line.value] for line in lines if line.color is not None}
    classes = tuple(
        ClassInfo(line.name, line.color or generated_color(index))
        for index, line in enumerate(kept)
    )
    check_names(str(path), classes)
    codec = LabelCodec(
        {IGNORE_INDEX: IGNORE_INDEX} | ids,
        colors,
        listed=True,
        says_255=IGNORE_INDEX in ids,
        added=(BACKGROUND.name,) if alone else (),
    )
    return classes, codec


def generated_color(index: int) -> Color:
    """Return a colour for a class without one: of the Pascal VOC colour map, after its black."""
    return numbered_classes(index + 2)[-1].color


def is_background(name: str) -> bool:
    """Return whether a class is what is around the others, as annotation tools spell it."""
    return name.strip("_ ").lower() == BACKGROUND.name


def is_ignored(name: str) -> bool:
    """Return whether a class is what nobody judged, as annotation tools spell it."""
    return name.strip("_ ").lower() in IGNORED_NAMES


def read_lines(path: Path) -> list[ClassLine]:
    """Return the classes of a list in the order of their values, those that are ignored too.

    Raises:
        DataError: the file is missing, or a line is not of the form that the module describes.
    """
    text = read_text(path, "; expected lines 'index name R G B'")
    rows = list(_rows(text))
    if len(rows) > 1 and _is_header(rows[0]):
        del rows[0]
    if rows and _HEADER_ALONE.fullmatch(rows[0].lower()):
        raise DataError(
            f"{path}: the first line, {rows[0]!r}, is a header or a class; take it out, or write "
            f"'0 {rows[0]}', '1 ...'"
        )
    found = [_match(path, row) for row in rows]
    numbered = bool(found) and found[0]["index"] is not None
    for row, match in zip(rows, found, strict=True):
        if (match["index"] is not None) != numbered:
            raise _unreadable(path, row, "some lines begin with an index and some do not")
    _refuse_counts(path, rows, [match["name"] for match in found])
    lines = [
        _line(path, row, match, index)
        for index, (row, match) in enumerate(zip(rows, found, strict=True))
    ]
    facts = (
        ("index", "values", "value"),
        ("name", "names", "name"),
        ("colour", "colours", "color"),
    )
    for field, several, shared in facts:
        values = [value for line in lines if (value := getattr(line, shared)) is not None]
        if twice := [value for value in values if values.count(value) > 1]:
            raise DataError(
                f"{path}: two classes have the {field} {twice[0]}; give them different {several}"
            )
    return sorted(lines, key=lambda line: line.value)


def _rows(text: str) -> Iterator[str]:
    """Yield what stands on each line, with a tab between its parts where they are separated."""
    for line in text.splitlines():
        bare = line.strip() if _OTHER_FORMAT.search(line) else line.partition("#")[0].strip()
        if not bare or bare.startswith("#"):
            continue
        if labelmap := _LABELMAP.fullmatch(bare):
            bare = labelmap[1]
        yield _SEPARATOR.sub("\t", bare)


def _is_header(row: str) -> bool:
    words = re.split(r"[\t _]+", row.lower())
    return len(words) > 1 and all(map(_HEADER_WORD.fullmatch, words))


def _match(path: Path, row: str) -> re.Match[str]:
    if _OTHER_FORMAT.search(row) or len(row) > _MAX_LINE or "\0" in row:
        raise _unreadable(path, row, "it is of another format")
    match = _COLUMNS.fullmatch(row)
    if match is None:
        raise _unreadable(path, row, "it has no name")
    if "\t" in match["name"]:
        raise _unreadable(path, row, "it holds more than one name")
    if match["index"] is None and _NUMBERING.fullmatch(match["name"]):
        raise _unreadable(path, row, "its index is not a whole number")
    return match


def _line(path: Path, row: str, match: re.Match[str], index: int) -> ClassLine:
    value = index if match["index"] is None else int(match["index"])
    color = None
    if match["red"] is not None:
        color = tuple(int(match[part]) for part in ("red", "green", "blue"))
    if max(value, *(color or (0,))) > IGNORE_INDEX:
        hint = f"; if masks store it, they have {of_16_bits([value])}"
        why = f"a number is above {IGNORE_INDEX}{hint if value > IGNORE_INDEX else ''}"
        raise _unreadable(path, row, why)
    counted = match["index"] is None
    return ClassLine(value, match["name"].strip(), color, counted)  # type: ignore[arg-type]  # three numbers


def _refuse_counts(path: Path, rows: list[str], names: list[str]) -> None:
    """Refuse names that end with what may be an index, a count or half a colour."""
    ends = [_COUNT.fullmatch(name) for name in names]
    counts = [len(end[2].split()) if end else 0 for end in ends]
    stems = {end[1] for end in ends if end}
    for row, count in zip(rows, counts, strict=True):
        if count > 1 or (all(counts) and len(stems) == len(rows)):
            raise _unreadable(path, row, "what the number after the name means is not clear")


def _unreadable(path: Path, row: str, why: str) -> DataError:
    shown = row.replace("\t", ",")
    return DataError(
        f"{path}: cannot read the line {shown!r:.80}: {why}; expected 'index name R G B', 'index "
        "name' or a name alone, one class a line, with numbers from 0 to 255"
    )


def _numbered_as_labelme(lines: list[ClassLine]) -> list[ClassLine]:
    """Return lines as labelme2voc numbers names, which stores the one before its class 0 as 255."""
    if not lines or not lines[0].counted or lines[0].name != _LABELME_IGNORED:
        return lines
    others = (replace(line, value=line.value - 1) for line in lines[1:])
    return [*others, replace(lines[0], value=IGNORE_INDEX)]


def _against_background(path: Path, lines: list[ClassLine], alone: ClassLine) -> list[ClassLine]:
    """Return the lines with a background of value 0 for the one class to be told from."""
    if alone.counted and len(lines) == 1:
        alone = replace(alone, value=1)
    others = [line for line in lines if line.name != alone.name]
    if is_background(alone.name) or 0 in {line.value for line in (alone, *others)}:
        raise DataError(
            f"{path}: has one class, {alone.name!r}, and nothing to tell it from; write a line for "
            "each of two with the value that labels store, such as '0 background' and '255 object'"
        )
    black = BACKGROUND.color if alone.color not in (None, BACKGROUND.color) else None
    background = ClassLine(0, BACKGROUND.name, black, alone.counted)
    return sorted([background, alone, *others], key=lambda line: line.value)
