"""A data set of files: pairing of images with labels, and decoding with checks.

Pairing lists folders and reads no pixels. What does not pair is kept as a problem beside the
pairs that do, so that `open_dataset` can refuse the set and `check_dataset` can still look at the
rest of it.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from fastseg_runtime.arrays.image import SUFFIXES
from fastseg_runtime.bundle.file_kind import UNKNOWN, file_kind
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.dataset import Array, DataError, LabelSizeError, Sample, check_index
from fastseg.data.image_file import (
    SIDEWAYS,
    UPRIGHT,
    Range,
    StoredLabel,
    read_picture,
    read_stored_label,
    turn,
)
from fastseg.data.label_codec import LabelCodec
from fastseg.data.listed_labels import Evidence, decode_listed, note_palette

IMAGE_SUFFIXES = SUFFIXES
_GREYS_256 = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # lossless: a class id must survive


@dataclass(frozen=True)
class Pair:
    """The files of one sample."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file or folder."""

    file: str
    message: str


def as_problem(error: DataError) -> Problem:
    """Split an error into the file, which every DataError begins with, and the rest."""
    file, _, message = str(error).partition(": ")
    return Problem(file, message)


@dataclass
class Sieve:
    """What becomes of annotations that cannot be drawn.

    Attributes:
        drops: they are left out, else the first one is an error.
        seen: annotations so far.
        dropped: those left out, each once.
    """

    drops: bool = False
    seen: int = 0
    dropped: dict[Problem, None] = field(default_factory=dict)

    @contextmanager
    def annotation(self, in_place_of_it: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Draw one annotation in here; what cannot be is replaced by what the call draws."""
        self.seen += 1
        try:
            yield
        except DataError as error:
            if not self.drops:
                raise
            self.dropped[as_problem(error)] = None
            in_place_of_it()


@runtime_checkable
class AnnotationReader(Protocol):
    """A label reader that can leave out single annotations."""

    @property
    def sieve(self) -> Sieve:
        """What becomes of those that cannot be drawn."""


class LabelReader(Protocol):
    """Gives the class map of a pair: from a mask file, from polygons, ..."""

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return (height, width) uint8 class ids, or raise a DataError that names the file."""


@dataclass(frozen=True)
class MaskReader:
    """Reads label files that hold one value or one colour per pixel."""

    codec: LabelCodec
    evidence: Evidence = field(default_factory=Evidence, compare=False)
    notes_palettes: bool = False  # of a codec without colours: every file has to have the same

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map, which has to be of the image's size."""
        stored = read_stored_label(pair.label)
        values = stored.values
        if values.shape[:2] != (height, width):
            raise LabelSizeError(
                f"{pair.label}: label is {values.shape[1]}x{values.shape[0]}, its image "
                f"{pair.image.name} is {width}x{height} (upright); they have to be equal. "
                "Export the label again at the image's size"
            )
        if self.codec.listed:
            return decode_listed(self.codec, stored, str(pair.label), self.evidence)
        if (palette_P3 := self._color_table(stored, str(pair.label))) is not None:
            values = palette_P3[values.clip(0, len(palette_P3) - 1)]
        elif stored.palette_P3 is not None and self.notes_palettes:
            used = np.unique(values).tolist()
            note_palette(self.codec, stored, used, str(pair.label), self.evidence)
        return self.codec.decode(values, str(pair.label))

    def _color_table(self, stored: StoredLabel, place: str) -> Array | None:
        """Return the colours of the values, (P, 3), where these count; None where values do.

        A palette of nothing but the kind's own colours, another for each value, says more than its
        numbers, which a program that drops unused entries gives anew.

        Raises:
            DataError: it differs from the numbers in black alone, which pads palettes too.
        """
        palette_P3 = stored.palette_P3
        if stored.values.ndim == 3:
            return None
        if not self.codec.ids:  # known by colours alone
            return _GREYS_256 if palette_P3 is None else palette_P3
        if palette_P3 is None or stored.values.max() >= min(len(palette_P3), IGNORE_INDEX):
            return None
        colors = [tuple(color) for color in palette_P3.tolist()]
        if not {*colors} <= {*self.codec.colors}:
            return None
        used = {value: colors[value] for value in np.unique(stored.values).tolist()}
        if len({*used.values()}) < len(used):
            return None
        ids = self.codec.ids
        if {c for v, c in used.items() if ids.get(v) != self.codec.colors[c]} == {(0, 0, 0)}:
            raise DataError(
                f"{place}: its palette has black for a value that is another class; save it in "
                "grey if the values are right, with three channels if the colours are"
            )
        return palette_P3


@dataclass(frozen=True)
class FileDataset:
    """One split of a data set on disk. See Dataset for the fields that are not explained here.

    Attributes:
        pairs: the files of each sample.
        read_label: decodes the label of a pair.
        problems: what pairing found wrong; open_dataset refuses a set that has any.
        added: classes that are in no list of the data, such as the background of polygons.
        unsplit: the pairs are those of all splits; load_split takes the split's.
        skipped: what --skip-broken left out.
        notes: what was decided of the data and has to be said.
        image_range: stored values of pictures that become 0 and 255, see read_picture.
    """

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    licence: str
    pairs: tuple[Pair, ...]
    read_label: LabelReader
    problems: tuple[Problem, ...] = ()
    added: tuple[str, ...] = ()
    unsplit: bool = False
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    image_range: Range | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read, decode and check one pair."""
        pair = self.pairs[check_index(index, len(self.pairs))]
        picture = read_picture(pair.image, self.image_range)
        height, width = picture.image_HW3.shape[:2]
        turned = "" if picture.orientation == UPRIGHT else "picture"
        try:
            label_HW = self.read_label(pair, height, width)
        except LabelSizeError:
            if picture.orientation not in SIDEWAYS:
                raise
            label_HW = turn(self.read_label(pair, width, height), picture.orientation)
            turned = "both"
        files = (str(pair.image), str(pair.label))
        return Sample(picture.image_HW3, label_HW, pair.name, files, turned)


def pair_files(
    images: Iterable[Path],
    labels: Iterable[Path],
    image_ending: str = "",
    label_ending: str = "",
    folders: tuple[Path, Path] | None = None,
) -> tuple[tuple[Pair, ...], tuple[Problem, ...]]:
    """Match images with labels by name.

    Args:
        images, labels: the files.
        image_ending: what follows the name in an image's stem, e.g. "_leftImg8bit".
        label_ending: what follows the name in a label's stem, e.g. "_L".
        folders: of the images and of the labels; a name is then the path within it.

    Returns:
        The pairs in the order of their names, and the files without a partner.
    """
    problems: list[Problem] = []
    image_folder, label_folder = folders or (None, None)
    image_by_name = _by_name(images, image_ending, image_folder, problems)
    label_by_name = _by_name(labels, label_ending, label_folder, problems)
    for name in sorted(image_by_name.keys() - label_by_name.keys()):
        hint = _other_suffix(label_folder, f"{name}{label_ending}", LABEL_SUFFIXES)
        text = f"image has no label {name}{label_ending}{hint}"
        problems.append(Problem(str(image_by_name[name]), text))
    for name in sorted(label_by_name.keys() - image_by_name.keys()):
        hint = _other_suffix(image_folder, f"{name}{image_ending}", IMAGE_SUFFIXES)
        problems.append(Problem(str(label_by_name[name]), f"label has no image {name}{hint}"))
    both = sorted(image_by_name.keys() & label_by_name.keys())
    pairs = [Pair(name, image_by_name[name], label_by_name[name]) for name in both]
    return tuple(_as_stored(pair, image_folder, image_ending) for pair in pairs), tuple(problems)


def _as_stored(pair: Pair, folder: Path | None, ending: str) -> Pair:
    """Return a pair called as its picture is: splits go by a hash of that."""
    name = name_within(folder or pair.image.parent, pair.image).removesuffix(ending)
    return replace(pair, name=name)


def _by_name(
    files: Iterable[Path], ending: str, folder: Path | None, problems: list[Problem]
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = composed(name_within(folder or file.parent, file)).removesuffix(ending)
        if name in found:
            problems.append(Problem(str(file), f"has the same name as {found[name].name}"))
        found.setdefault(name, file)
    return found


def name_within(folder: Path, file: Path) -> str:
    """Return the path of a file within a folder, without its suffix, e.g. "drive1/0001"."""
    return file.relative_to(folder).with_suffix("").as_posix()


def composed(name: str) -> str:
    """Return a name to compare: a Mac writes letters with accents as two characters each (NFD)."""
    return unicodedata.normalize("NFC", name)


def _other_suffix(folder: Path | None, name: str, suffixes: tuple[str, ...]) -> str:
    """Return a hint at a file of that name that is of no format that is read."""
    if folder is None:
        return ""
    there = (folder / name).parent
    same = (f for f in sorted(there.glob("*")) if f.stem == Path(name).name)
    lost = next((f for f in same if f.is_file() and f.suffix.lower() not in suffixes), None)
    if lost is None:
        return ""
    lossy = lost.suffix.lower() in (".jpg", ".jpeg", ".webp", ".avif", ".heic")
    why = "JPEG and the like change values" if lossy and suffixes == LABEL_SUFFIXES else "not read"
    return f"; {lost.name} is there, but of {lost.suffix} ({why}): save it as PNG"


def find_folders(
    root: Path, layouts: Iterable[tuple[str, str]], names: Iterable[str]
) -> tuple[Path, Path] | None:
    """Return the folders of images and labels that are there, {name} being each name.

    Raises:
        DataError: there are several of them, of which one alone would be read.
    """
    found = []
    for layout, name in product(layouts, names):
        images, labels = (root / folder.format(name=name) for folder in layout)
        if images.is_dir() and labels.is_dir():
            found.append((images, labels))
    if len(found) > 1:
        raise DataError(
            f"{root}: both {found[0][0].relative_to(root)} and {found[1][0].relative_to(root)} are "
            "there for one split; put their files together, or move one away"
        )
    return found[0] if found else None


def read_text(path: Path, expected: str = "") -> str:
    """Return a text in UTF-8 or marked UTF-16, or raise a DataError that says what was expected."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # of PowerShell's >
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        kind = file_kind(path)
        if kind == UNKNOWN:
            kind = "not text in UTF-8; if an editor shows it as text, save it as UTF-8"
        raise DataError(f"{path}: is {kind}{expected or ', not text'}") from error
    except OSError as error:
        if not path.parent.exists():
            raise DataError(f"{path.parent}: no such folder; check the name") from error
        raise DataError(f"{path}: cannot be read ({error.strerror}){expected}") from error


def file_called(folder: Path, name: str) -> Path:
    """Return the file of that name, in capital letters or not where there is none so exactly."""
    exact = folder / name
    if exact.is_file() or not folder.is_dir():
        return exact
    same = sorted(file for file in folder.iterdir() if file.name.lower() == name.lower())
    return next((file for file in same if file.is_file()), exact)


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files with one of the suffixes in a folder and those in it, sorted.

    Hidden files and folders are left out.

    Raises:
        DataError: the folder is missing or cannot be read.
    """
    found: list[Path] = []
    try:
        _list_into(found, folder, suffixes, frozenset())
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    return sorted(found)


def _list_into(
    found: list[Path], folder: Path, suffixes: tuple[str, ...], above: frozenset[Path]
) -> None:
    above |= {folder.resolve()}
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.suffix.lower() in suffixes and not entry.is_dir():
            found.append(entry)
        elif entry.is_dir() and entry.resolve() not in above:  # else a link that leads back
            _list_into(found, entry, suffixes, above)
