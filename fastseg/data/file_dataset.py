"""A data set of files: pairing of images with labels, and decoding with checks.

Pairing lists folders and reads no pixels. What does not pair is kept as a problem beside the
pairs that do, so that `open_dataset` can refuse the set and `check_dataset` can still look at the
rest of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.dataset import Array, DataError, Sample, check_index
from fastseg.data.image_file import read_image, read_label_file
from fastseg.data.label_codec import LabelCodec

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # lossless: a class id must survive


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


class LabelReader(Protocol):
    """Gives the class map of a pair: from a mask file, from polygons, ..."""

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return (height, width) uint8 class ids, or raise a DataError that names the file."""


@dataclass(frozen=True)
class MaskReader:
    """Reads label files that hold one value or one colour per pixel."""

    codec: LabelCodec

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map, which has to be of the image's size."""
        values = read_label_file(pair.label)
        if values.shape[:2] != (height, width):
            raise DataError(
                f"{pair.label}: label is {values.shape[1]}x{values.shape[0]}, its image "
                f"{pair.image.name} is {width}x{height} (upright); they have to be equal. "
                "Export the label again at the image's size"
            )
        return self.codec.decode(values, str(pair.label))


@dataclass(frozen=True)
class FileDataset:
    """One split of a data set on disk. See Dataset for the fields that are not explained here.

    Attributes:
        pairs: the files of each sample.
        read_label: decodes the label of a pair.
        problems: what pairing found wrong; open_dataset refuses a set that has any.
    """

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    licence: str
    pairs: tuple[Pair, ...]
    read_label: LabelReader
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read, decode and check one pair."""
        pair = self.pairs[check_index(index, len(self.pairs))]
        image_HW3 = read_image(pair.image)
        height, width = image_HW3.shape[:2]
        label_HW = self.read_label(pair, height, width)
        return Sample(image_HW3, label_HW, pair.name, (str(pair.image), str(pair.label)))


def pair_files(
    images: Iterable[Path],
    labels: Iterable[Path],
    image_ending: str = "",
    label_ending: str = "",
) -> tuple[tuple[Pair, ...], tuple[Problem, ...]]:
    """Match images with labels by name.

    Args:
        images, labels: the files.
        image_ending: what follows the name in an image's stem, e.g. "_leftImg8bit".
        label_ending: what follows the name in a label's stem, e.g. "_L".

    Returns:
        The pairs in the order of their names, and the files without a partner.
    """
    problems: list[Problem] = []
    image_by_name = _by_name(images, image_ending, problems)
    label_by_name = _by_name(labels, label_ending, problems)
    for name in sorted(image_by_name.keys() - label_by_name.keys()):
        problems.append(
            Problem(str(image_by_name[name]), f"image has no label {name}{label_ending}")
        )
    for name in sorted(label_by_name.keys() - image_by_name.keys()):
        problems.append(Problem(str(label_by_name[name]), f"label has no image {name}"))
    both = sorted(image_by_name.keys() & label_by_name.keys())
    pairs = tuple(Pair(name, image_by_name[name], label_by_name[name]) for name in both)
    return pairs, tuple(problems)


def _by_name(files: Iterable[Path], ending: str, problems: list[Problem]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = file.stem.removesuffix(ending)
        if name in found:
            problems.append(Problem(str(file), f"has the same name as {found[name].name}"))
        found.setdefault(name, file)
    return found


def find_folders(
    root: Path, layouts: Iterable[tuple[str, str]], names: Iterable[str]
) -> tuple[Path, Path] | None:
    """Return the first folders of images and labels that are there, {name} being each name."""
    for layout, name in product(layouts, names):
        images, labels = (root / folder.format(name=name) for folder in layout)
        if images.is_dir() and labels.is_dir():
            return images, labels
    return None


def read_text(path: Path, expected: str = "") -> str:
    """Return a text in UTF-8, or raise a DataError that ends with what was expected."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is {file_kind(path)}{expected or ', not text'}") from error
    except OSError as error:
        if not path.parent.exists():
            raise DataError(f"{path.parent}: no such folder; check the name") from error
        raise DataError(f"{path}: cannot be read ({error.strerror}){expected}") from error


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder with one of the suffixes, sorted, hidden ones left out.

    Raises:
        DataError: the folder is missing or cannot be read.
    """
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in suffixes]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(file for file in files if not file.name.startswith("."))
