"""How label files are read by a class list that a user wrote: in doubt it asks, it never guesses.

A list names values, colours or both; a file stores one value per pixel, with a palette or without,
or colours. Where list and file, or two files, can mean different classes, the error says which
line would settle it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX

from fastseg.data.dataset import Array, DataError
from fastseg.data.image_file import StoredLabel
from fastseg.data.label_codec import Color, LabelCodec, look_up

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
BY_VALUE, BY_GREY = "values of classes", "greys that are colours of classes"


@dataclass
class Evidence:
    """What the label files of a split were found to store.

    Attributes:
        colors: colour and first file by the value that stands for it in a palette.
        readings: first file by how its values were read, BY_VALUE or BY_GREY.
        doubtful: files that hold the first class and 255 alone, of which no line of the list says
            that it is ignored: in a mask of two values it is the other class.
    """

    colors: dict[int, tuple[Color | None, str]] = field(default_factory=dict)
    readings: dict[str, str] = field(default_factory=dict)
    doubtful: dict[str, None] = field(default_factory=dict)

    def note_color(self, value: int, color: Color | None, place: str) -> None:
        """Note what a palette has for a value, or refuse it if another file's has another."""
        known, where = self.colors.setdefault(value, (color, place))
        if known != color:
            raise DataError(
                f"{place}: its palette has {_rgb(color)} for the value {value}, that of {where} "
                f"{_rgb(known)}: one of them cannot be the class; give each class its colour in "
                "the class list, classes.txt, 'index name R G B', and the colours count"
            )

    def note_reading(self, reading: str, place: str) -> None:
        """Note how a file was read, or refuse it if another one was read the other way."""
        if self.readings and reading not in self.readings:  # which is not kept: it may be left out
            both = {**self.readings, reading: place}
            raise DataError(
                f"{both[BY_GREY]}: holds {BY_GREY}, {both[BY_VALUE]} "
                f"{BY_VALUE}: they cannot both be right; store one kind, and if 255 is no class "
                "write '255 void' into the class list"
            )
        self.readings.setdefault(reading, place)

    def join(self, other: Evidence) -> None:
        """Add what another split's files store, or refuse what contradicts it."""
        for value, (color, place) in other.colors.items():
            self.note_color(value, color, place)
        for reading, place in other.readings.items():
            self.note_reading(reading, place)
        self.doubtful |= other.doubtful


def decode_listed(codec: LabelCodec, stored: StoredLabel, place: str, evidence: Evidence) -> Array:
    """Return the class map, (H, W) uint8, of a label file.

    Args:
        codec: of the list.
        stored: the file's content.
        place: names the file.
        evidence: of the files before it; this one's is added.

    Raises:
        UnknownLabelError: a value or a colour has no class.
        DataError: what it means is in doubt.
    """
    if stored.values.ndim == 3:
        return codec.decode(stored.values, place)
    used = np.unique(stored.values).tolist()
    if stored.palette_P3 is None:
        ids = _ids_of_greys(codec, used, place, evidence)
    elif codec.colors:
        ids = _ids_of_palette(codec, stored, used, place)
    else:
        note_palette(codec, stored, used, place, evidence)
        ids = codec.ids
    label_HW, unknown_HW = look_up(stored.values, ids)
    if unknown_HW.any():
        raise codec.unknown(stored.values[unknown_HW], place)
    ignored = not codec.says_255 and ids.get(IGNORE_INDEX) == IGNORE_INDEX
    if ignored and used[1:] == [IGNORE_INDEX] and ids[used[0]] == 0:
        evidence.doubtful[place] = None
    return label_HW


def _ids_of_greys(
    codec: LabelCodec, used: list[int], place: str, evidence: Evidence
) -> Mapping[int, int]:
    """Return the class id by value where that may be an index, or a grey that is a class's."""
    greys = {v: codec.colors[v, v, v] for v in used if (v, v, v) in codec.colors}
    if len(greys) < len(used):
        if codec.colors:
            evidence.note_reading(BY_VALUE, place)
        return codec.ids
    differing = [v for v in used if v in codec.ids and codec.ids[v] != greys[v]]
    if not differing and codec.ids.keys() >= set(used):
        return codec.ids  # both mean the same
    if differing and (differing != [IGNORE_INDEX] or codec.says_255):
        raise DataError(
            f"{place}: the value {differing[0]} is one class by its index in the class list and "
            "another by its colour; change that colour, or save the label with three channels"
        )
    evidence.note_reading(BY_GREY, place)
    return greys


def _ids_of_palette(
    codec: LabelCodec, stored: StoredLabel, used: list[int], place: str
) -> Mapping[int, int]:
    """Return the class id by value as the palette's colours have it."""
    colors = _colors(stored, used).items()
    ids = {v: codec.colors[c] for v, c in colors if c is not None and c in codec.colors}
    if not codec.says_255:
        ids.setdefault(IGNORE_INDEX, IGNORE_INDEX)
    if lost := [value for value in used if value not in ids]:
        raise DataError(
            f"{place}: its palette has {_rgb(_colors(stored, lost)[lost[0]])} for the value "
            f"{lost[0]}, which is no colour of the class list; write the palette's colours into "
            "the list, or none at all, and the values count"
        )
    return ids


def note_palette(
    codec: LabelCodec, stored: StoredLabel, used: list[int], place: str, evidence: Evidence
) -> None:
    """Note the colours of the values, which have to be the same in all files.

    Raises:
        DataError: they are not, or white and black are numbered as no mask is.
    """
    colors = _colors(stored, used)
    if colors.get(0) == _WHITE and colors.get(1) == _BLACK:
        raise DataError(
            f"{place}: its palette has white for the value 0 and black for 1; give the classes "
            "their colours in the class list, '0 background 0 0 0' and '1 object 255 255 255', "
            "and the colours count"
        )
    for value, color in colors.items():
        if value != IGNORE_INDEX or codec.says_255:
            evidence.note_color(value, color, place)


def _colors(stored: StoredLabel, used: list[int]) -> dict[int, Color | None]:
    """Return the palette's colour of each value, None of one past its end."""
    palette = [] if stored.palette_P3 is None else stored.palette_P3.tolist()
    return {v: tuple(palette[v]) if v < len(palette) else None for v in used}


def _rgb(color: Color | None) -> str:
    return "no colour" if color is None else " ".join(map(str, color))
