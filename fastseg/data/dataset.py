"""What a data set is: pairs of an image and its class map, and the errors of broken ones.

Shape letters: H, W pixels, K classes. Class ids are uint8, IGNORE_INDEX marks pixels that nobody
judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

Array = np.ndarray[Any, np.dtype[Any]]
MAX_CLASSES = IGNORE_INDEX
SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """A data set or one of its files is not what it should be.

    The message is "PLACE: what is wrong", where PLACE is the file, the folder or the spec.
    """


class MissingSplitError(DataError):
    """The data set has no such split."""


class AmbiguousDataError(DataError):
    """A path alone could be several kinds of data."""


class LabelSizeError(DataError):
    """A label, or what is said of it, has another size than its picture."""


class UnknownLabelError(DataError):
    """A label file holds values or colours that the class list does not have.

    Attributes:
        pixels: pixel count by unknown value, e.g. {"13": 402} or {"(1, 2, 3)": 7}.
    """

    def __init__(self, message: str, pixels: Mapping[str, int]) -> None:
        super().__init__(message)
        self.pixels = dict(pixels)


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    Attributes:
        image_HW3: uint8, RGB.
        label_HW: uint8 class ids, 255 where nobody judged.
        name: the name within the split, e.g. the file's stem.
        files: the source files; none for generated pictures.
        turned: how an EXIF mark turned them: "" not at all, "picture" where the label is taken to
            be upright already, "both" where the label had the picture's stored size.
    """

    image_HW3: Array
    label_HW: Array
    name: str
    files: tuple[str, ...] = ()
    turned: str = ""


class Samples(Protocol):
    """Samples by index: a data set, or a list that holds one in memory."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Sample:
        """Return a sample.

        Raises:
            IndexError: index is not below len(self).
            DataError: a file is unreadable, or image and label do not fit together.
        """


class Dataset(Samples, Protocol):
    """One split of a data set. Opening reads no pixels; each access decodes and checks them."""

    @property
    def name(self) -> str:
        """The kind of data, e.g. "camvid"."""

    @property
    def split(self) -> str:
        """One of train, val, test, trainval."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The K classes in the order of their ids."""

    @property
    def licence(self) -> str:
        """One line on who may use the data, "" when unknown."""


@dataclass(frozen=True)
class JoinedDataset:
    """Several splits of one data set in a row, e.g. train + val. See Dataset for the fields."""

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    licence: str
    parts: tuple[Dataset, ...]

    def __len__(self) -> int:
        """Return the number of samples of all parts."""
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, counted through the parts."""
        offset = check_index(index, len(self))
        for part in self.parts:
            if offset < len(part):
                return part[offset]
            offset -= len(part)
        raise IndexError(index)


def check_index(index: int, length: int) -> int:
    """Return a possibly negative index as one from 0 to length - 1, else raise IndexError."""
    if not -length <= index < length:
        raise IndexError(f"sample {index} of {length}")
    return index % length


def class_frequencies(samples: Samples, num_classes: int) -> Array:
    """Return how many labelled pixels each class has, (K,) float64; ignored ones do not count."""
    counts_K = np.zeros(num_classes)
    for index in range(len(samples)):
        label_HW = samples[index].label_HW
        counts_K += np.bincount(label_HW.ravel(), minlength=256)[:num_classes]
    return counts_K
