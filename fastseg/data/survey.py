"""What a split holds, counted as its samples are read, and whether one can train on it.

`fastseg-train --check` and the training ask the same functions: obstacles() and remarks().
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from fastseg_runtime.bundle.manifest import FITS, IGNORE_INDEX

from fastseg.data.dataset import DataError, Dataset, JoinedDataset, Sample
from fastseg.data.file_dataset import FileDataset, MaskReader, Problem
from fastseg.data.image_file import stored_range
from fastseg.data.listed_labels import Evidence
from fastseg.data.loaders import DRAWN, refuse_other_classes
from fastseg.data.mask_folders import BinaryReader

_RARE_SHARE = 0.001  # 170 pixels of 480x360: a class of fewer is hardly learnt
_MOSTLY_IGNORED = 0.5  # nobody leaves out so much on purpose
OTHER_ASPECT = 0.1  # a picture stretched by more looks unlike the others
NARROW_LEVELS = 64  # of 256: 14 bits in 16, and whatever is darker, looks nearly black
_TAILS = 0.001  # of the pixels at either end: a hot pixel is no range
_LOOKED_AT = 8  # pictures whose stored values tell what range to write


@dataclass(frozen=True)
class ClassCount:
    """How much of a split is of one class."""

    name: str
    pixel_share: float  # of the labelled pixels
    images: int  # that hold it


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        pairs: image and label pairs.
        readable: pairs that could be decoded; the counts below are theirs.
        sizes: images by size, e.g. {"480x360": 367}.
        ignored_share: share of all pixels that nobody judged.
        unknown_labels: pixels by a stored value or colour that is not in the class list.
        problems: by file.
    """

    split: str
    pairs: int
    readable: int
    sizes: dict[str, int]
    classes: tuple[ClassCount, ...]
    ignored_share: float
    unknown_labels: dict[str, int]
    problems: tuple[Problem, ...]


class Survey:
    """Samples of a data set, each counted when it is read for the first time.

    Attributes:
        dataset: the samples.
        sizes: pictures by (width, height), in the order in which they came.
        digests: of the pictures' pixels, by the samples' names.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sizes = Counter[tuple[int, int]]()
        self.digests: dict[str, str] = {}
        self._pixels_256, self._holding_256 = np.zeros((2, 256), np.int64)
        self._levels_256 = np.zeros(256, np.int64)
        self._turned = Counter[str]()
        self._seen: set[int] = set()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, and count it."""
        sample = self.dataset[index]
        if index not in self._seen:
            self._seen.add(index)
            self._count(sample)
        return sample

    def complete(self) -> None:
        """Read the samples that nobody has read yet."""
        for index in range(len(self)):
            if index not in self._seen:
                self[index]

    def most_frequent_size(self) -> tuple[int, int]:
        """Return the (width, height) of most pictures; of two as frequent ones the larger."""
        return max(self.sizes, key=lambda size: (self.sizes[size], math.prod(size)))

    def input_size(self) -> str:
        """Return a sentence on the size that a network gets that is told none."""
        size = self.most_frequent_size()
        return (
            f"{self.dataset.split}: the network's input is {_x(size)}, the size of "
            f"{self.sizes[size]} of {len(self._seen)} pictures; another by --size"
        )

    def shared_with(self, other: Survey) -> list[str]:
        """Return a sentence if other samples have the very pixels of some of these."""
        shared = set(self.digests.values()) & set(other.digests.values())
        pair = f"{self.dataset.split} and {other.dataset.split}"
        return [f"{pair} share {len(shared)} pictures: the score is too good"] if shared else []

    def report(
        self, problems: Iterable[Problem] = (), unknown: dict[str, int] | None = None
    ) -> SplitReport:
        """Return what was counted, and what else is known to be wrong."""
        classes = self.dataset.classes
        labelled = int(self._pixels_256[: len(classes)].sum())
        ignored = int(self._pixels_256[IGNORE_INDEX])
        return SplitReport(
            split=self.dataset.split,
            pairs=len(self.dataset),
            readable=len(self._seen),
            sizes={f"{width}x{height}": count for (width, height), count in self.sizes.items()},
            classes=tuple(
                ClassCount(
                    info.name,
                    int(self._pixels_256[k]) / max(labelled, 1),
                    int(self._holding_256[k]),
                )
                for k, info in enumerate(classes)
            ),
            ignored_share=ignored / max(labelled + ignored, 1),
            unknown_labels=unknown or {},
            problems=tuple(problems),
        )

    def unusable(self) -> Iterator[str]:
        """Yield why neither training nor validation can do with these samples."""
        split, classes = self.dataset.split, self.dataset.classes
        if not len(self):
            yield f"{split} is empty; put pictures there, or remove its folder"
        elif self._seen and not self.read_any_class():
            yield (
                f"{split}: all pixels are ignored; labels have to store the values of classes, and "
                "255 only where nobody judged"
            )
        doubtful = [place for part in self.file_parts() for place in _evidence(part).doubtful]
        if len(classes) == 2 and doubtful:
            first, second = (info.name for info in classes)
            yield (
                f"{split}: {len(doubtful)} label files hold nothing but {first} and 255, e.g. "
                f"{doubtful[0]}; if 255 is {second}, let the class list be '0 {first}' and '255 "
                f"{second}', if it is ignored '0 {first}', '1 {second}' and '255 void'"
            )

    def read_any_class(self) -> bool:
        """Return whether any pixel had a class."""
        return bool(self._pixels_256[: len(self.dataset.classes)].any())

    def absent_classes(self) -> list[str]:
        """Return the classes of the data's list of which no pixel was read."""
        added = {name for part in self.file_parts() for name in part.added}
        names = [info.name for info in self.dataset.classes]
        return [n for k, n in enumerate(names) if not self._pixels_256[k] and n not in added]

    def why_absent(self, names: Sequence[str]) -> str:
        """Return a sentence on classes without a pixel, with the line that may mend it."""
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        text = f"{self.dataset.split} has no pixel of class {shown}"
        text += f" in {len(self)} picture{'s' * (len(self) != 1)}"
        readers = [part.read_label for part in self.file_parts()]
        lists = [r.codec for r in readers if isinstance(r, MaskReader) and r.codec.listed]
        if self._pixels_256[IGNORE_INDEX] and not all(codec.says_255 for codec in lists):
            text += f", and its labels hold 255; {_settle_255(names[0])}"
        mend = "add some that show it" + (", correct the class list" if lists else "")
        return f"{text}; {mend}, or train without it by --allow-missing-classes"

    def remarks(
        self, network_size: tuple[int, int] | None = None, fit: str = FITS[0]
    ) -> Iterator[str]:
        """Yield what has to be said of these samples.

        Args:
            network_size: what they are resized to.
            fit: how.
        """
        split, report = self.dataset.split, self.report()
        for part in self.file_parts():
            yield from part.notes
            for problem in part.skipped:
                yield f"{split}: skipped {problem.file}: {problem.message}"
        if len(self.sizes) > 1:
            yield f"{split} has images of {len(self.sizes)} sizes"
        if network_size is not None and fit == FITS[0]:
            yield from self._other_aspects(network_size)
        if count := self._turned["picture"]:
            yield (
                f"{split}: {count} pictures were turned upright by their EXIF mark, and their "
                "labels are taken to be upright already; if they were drawn on the pictures as "
                "stored, remove the mark (exiftool -Orientation= FILES)"
            )
        if count := self._turned["both"]:
            yield f"{split}: {count} pictures and their labels were turned upright by EXIF"
        yield from self._narrow_range()
        if report.ignored_share > _MOSTLY_IGNORED:
            yield (
                f"{split}: {report.ignored_share:.0%} of the pixels are ignored; a mask that "
                "stores 255 for its class has to store the class's index instead"
            )
        for entry in report.classes if report.readable else ():
            if not entry.images:
                yield f"{split} has no pixel of class {entry.name}"
            elif entry.pixel_share < _RARE_SHARE:
                yield f"{split}: {entry.name} has only {entry.pixel_share:.3%} of pixels"

    def _other_aspects(self, network_size: tuple[int, int]) -> Iterator[str]:
        aspect = network_size[0] / network_size[1]
        others = [size for size in self.sizes if _stretch(size, aspect) > 1 + OTHER_ASPECT]
        if others:
            yield (
                f"{self.dataset.split}: {sum(self.sizes[size] for size in others)} of "
                f"{len(self._seen)} pictures have another aspect than the network's input "
                f"{_x(network_size)}, e.g. {_x(others[0])}: they are stretched to it; "
                "training with --size WxH --fit letterbox keeps theirs"
            )

    def _narrow_range(self) -> Iterator[str]:
        shares_256 = np.cumsum(self._levels_256) / max(self._levels_256.sum(), 1)
        low, high = np.searchsorted(shares_256, (_TAILS, 1 - _TAILS))
        if not self._seen or high - low >= NARROW_LEVELS:
            return
        files = [pair.image for part in self.file_parts() for pair in part.pairs]
        text = f"{self.dataset.split}: pictures use {high - low + 1} of 256 levels"
        if ranges := list(islice(_stored_ranges(files), _LOOKED_AT)):
            least, most = min(r[0][0] for r in ranges), max(r[0][1] for r in ranges)
            dark = 0 <= least < most / 4  # as a sensor's bits in a wider file: whole powers of two
            scale = (
                f"0:{2 ** math.ceil(math.log2(most + 1)) - 1}"
                if dark
                else f"{least:.10g}:{most:.10g}"
            )
            text += f" (their files {least:.10g} to {most:.10g} of {ranges[0][1]:.10g})"
            if least < most:
                text += (
                    f"; stretch them with --image-range {scale}, and what the device sees in the "
                    "same way"
                )
        yield text

    def file_parts(self) -> list[FileDataset]:
        """Return the data sets of files that the samples come from."""
        parts = self.dataset.parts if isinstance(self.dataset, JoinedDataset) else [self.dataset]
        return [part for part in parts if isinstance(part, FileDataset)]

    def _count(self, sample: Sample) -> None:
        counts_256 = np.bincount(sample.label_HW.ravel(), minlength=256)
        self._pixels_256 += counts_256
        self._holding_256 += counts_256 > 0
        self._levels_256 += np.bincount(sample.image_HW3[::2, ::2].ravel(), minlength=256)
        self.sizes[sample.image_HW3.shape[1], sample.image_HW3.shape[0]] += 1
        self._turned[sample.turned] += 1
        digest = hashlib.blake2b(sample.image_HW3.tobytes(), digest_size=16)
        self.digests[sample.name] = digest.hexdigest()


def _stored_ranges(files: Iterable[Path]) -> Iterator[tuple[tuple[float, float], float]]:
    for file in files:
        with suppress(DataError):  # it is told of as broken
            yield stored_range(file)


def obstacles(
    spec: str, train: Survey, val: Survey | None, allow_missing_classes: bool = False
) -> Iterator[str]:
    """Yield why a training cannot start, or would learn or say something wrong.

    Args:
        spec: names the data.
        train: what is trained on, all read that can be.
        val: what is validated on; None for nothing.
        allow_missing_classes: a class without a pixel to learn from is meant so.
    """
    surveys = [train] if val is None else [train, val]
    names = [info.name for info in train.dataset.classes]
    if len(names) < 2:
        yield (
            f"has one class, {names[0]!r}: nothing to tell it from; name what is not it, such as "
            "'background', in the class list too"
        )
    for survey in surveys:
        yield from survey.unusable()
    absent = train.absent_classes() if train.read_any_class() else []
    if absent and not allow_missing_classes and train.dataset.name not in DRAWN:
        yield train.why_absent(absent)
    try:
        joined = Evidence()
        for survey in surveys:
            for part in survey.file_parts():
                joined.join(_evidence(part))
        if val is not None:
            refuse_other_classes(spec, train.dataset, val.dataset)
    except DataError as error:
        yield str(error)


def _evidence(part: FileDataset) -> Evidence:
    reader = part.read_label
    return reader.evidence if isinstance(reader, MaskReader | BinaryReader) else Evidence()


def _settle_255(name: str) -> str:
    return (
        f"if 255 is {name}, write '255 {name}' into the class list, and each other class with its "
        "value; if it is ignored, write '255 void'"
    )


def _stretch(size: tuple[int, int], aspect: float) -> float:
    ratio = size[0] / size[1] / aspect
    return max(ratio, 1 / ratio)


def _x(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
