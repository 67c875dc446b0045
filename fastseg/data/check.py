"""Look at every file of a data set; report and show what is in it and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from rich.console import Group
from rich.text import Text

from fastseg.data.dataset import (
    SPLITS,
    DataError,
    Dataset,
    MissingSplitError,
    UnknownLabelError,
)
from fastseg.data.file_dataset import FileDataset, Problem
from fastseg.data.loaders import load_split
from fastseg.progress import show_progress

_RARE_SHARE = 0.001  # 170 pixels of 480x360: a class of fewer is hardly learnt
_MOSTLY_IGNORED = 0.5  # nobody leaves out so much on purpose
_LISTED = 20  # problems shown; the report itself has all


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


@dataclass(frozen=True)
class Overlap:
    """Samples that two splits share: the same name, or the same pixels under any name."""

    splits: tuple[str, str]
    kind: str  # "name" or "pixels"
    names: tuple[str, ...]


@dataclass(frozen=True)
class DatasetReport:
    """The whole data set. dataclasses.asdict() makes it JSON."""

    spec: str
    licence: str
    splits: tuple[SplitReport, ...]
    overlaps: tuple[Overlap, ...]
    problems: tuple[Problem, ...]  # with the set as a whole
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether training can start: no problem anywhere, no picture in two splits."""
        broken = any(split.problems for split in self.splits) or bool(self.problems)
        return not broken and not any(overlap.kind == "pixels" for overlap in self.overlaps)


def check_dataset(spec: str, progress: bool = False) -> DatasetReport:
    """Read every file of every split, with a bar if asked; broken ones are reported, not raised."""
    reports, digests, problems, licence = [], {}, [], ""
    for split in SPLITS:
        try:
            dataset = load_split(spec, split)
        except MissingSplitError:
            continue
        except DataError as error:
            problems.append(_problem(error))
            break  # the path, the kind or the class list: the same for every split
        licence = dataset.licence
        report, digests[split] = _check_split(dataset, progress)
        reports.append(report)
    if not reports and not problems:
        problems.append(Problem(spec, f"has none of the splits {', '.join(SPLITS)}"))
    overlaps = tuple(_overlaps(digests))
    warnings = tuple(_warnings(reports, overlaps))
    return DatasetReport(spec, licence, tuple(reports), overlaps, tuple(problems), warnings)


def _check_split(dataset: Dataset, progress: bool) -> tuple[SplitReport, dict[str, str]]:
    """Return the report of a split, and the digest of each readable image by name."""
    pixels_256, holding_256 = np.zeros((2, 256), np.int64)
    sizes, unknown, digests = Counter[str](), Counter[str](), dict[str, str]()
    problems = list(dataset.problems) if isinstance(dataset, FileDataset) else []
    indices: Iterable[int] = range(len(dataset))
    if progress:
        indices = show_progress(indices, f"checking {dataset.split}", len(dataset))
    for index in indices:
        try:
            sample = dataset[index]
        except UnknownLabelError as error:
            unknown.update(error.pixels)
            problems.append(_problem(error))
        except DataError as error:
            problems.append(_problem(error))
        else:
            image_HW3 = sample.image_HW3
            counts_256 = np.bincount(sample.label_HW.ravel(), minlength=256)
            pixels_256 += counts_256
            holding_256 += counts_256 > 0
            sizes[f"{image_HW3.shape[1]}x{image_HW3.shape[0]}"] += 1
            digest = hashlib.blake2b(image_HW3.tobytes(), digest_size=16)
            digests[sample.name] = digest.hexdigest()
    labelled = int(pixels_256[: len(dataset.classes)].sum())
    ignored = int(pixels_256[IGNORE_INDEX])
    report = SplitReport(
        split=dataset.split,
        pairs=len(dataset),
        readable=len(digests),
        sizes=dict(sizes),
        classes=tuple(
            ClassCount(info.name, int(pixels_256[k]) / max(labelled, 1), int(holding_256[k]))
            for k, info in enumerate(dataset.classes)
        ),
        ignored_share=ignored / max(labelled + ignored, 1),
        unknown_labels=dict(unknown),
        problems=tuple(problems),
    )
    return report, digests


def _problem(error: DataError) -> Problem:
    """Split an error into the file, which every DataError begins with, and the rest."""
    file, _, message = str(error).partition(": ")
    return Problem(file, message)


def _overlaps(digests: dict[str, dict[str, str]]) -> Iterable[Overlap]:
    for first, second in combinations(digests, 2):
        if names := sorted(digests[first].keys() & digests[second].keys()):
            yield Overlap((first, second), "name", tuple(names))
        seen = set(digests[first].values())
        if names := sorted(name for name, digest in digests[second].items() if digest in seen):
            yield Overlap((first, second), "pixels", tuple(names))


def _warnings(reports: list[SplitReport], overlaps: Iterable[Overlap]) -> Iterable[str]:
    present = {report.split for report in reports}
    for split in SPLITS:
        if reports and split not in present:
            yield f"no split {split}"
    for overlap in overlaps:
        pair = " and ".join(overlap.splits)
        what = "names" if overlap.kind == "name" else "pictures"
        yield f"{pair} share {len(overlap.names)} {what}, e.g. {overlap.names[0]}"
    for report in reports:
        yield from _split_warnings(report)


def _split_warnings(report: SplitReport) -> Iterable[str]:
    if not report.pairs:
        yield f"{report.split} is empty"
    if len(report.sizes) > 1:
        yield f"{report.split} has images of {len(report.sizes)} sizes"
    if report.ignored_share > _MOSTLY_IGNORED:
        yield (
            f"{report.split}: {report.ignored_share:.0%} of the pixels are ignored; a mask that "
            "stores 255 for its class has to store the class's index instead"
        )
    for entry in report.classes if report.readable else ():
        if not entry.images:
            yield f"{report.split} has no pixel of class {entry.name}"
        elif entry.pixel_share < _RARE_SHARE:
            yield f"{report.split}: {entry.name} has only {entry.pixel_share:.3%} of pixels"


def render_report(report: DatasetReport) -> Group:
    """Return the report as tables and lines for rich's console.print()."""
    parts: list[TextTable | Text] = [_splits_table(report)]
    if report.splits:
        parts.append(_classes_table(report))
    for split in report.splits:
        unknown = sorted(split.unknown_labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{value} ({pixels} px)" for value, pixels in unknown[:_LISTED])
        if shown:
            parts.append(Text(f"{split.split}: unknown label values {shown}", "red"))
    problems = [*report.problems, *(p for split in report.splits for p in split.problems)]
    parts += [Text(f"{problem.file}: {problem.message}", "red") for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        parts.append(Text(f"and {len(problems) - _LISTED} more problems; --json has all", "red"))
    parts += [Text(f"warning: {warning}", "yellow") for warning in report.warnings]
    parts.append(Text("ready to train" if report.ok else "not ready to train: see above"))
    return Group(*parts)


def _splits_table(report: DatasetReport) -> TextTable:
    headings = ("split", "pairs", "readable", "sizes", "ignored", "problems")
    rows = [
        (
            split.split,
            str(split.pairs),
            str(split.readable),
            _sizes(split),
            f"{split.ignored_share:.1%}",
            str(len(split.problems)),
        )
        for split in report.splits
    ]
    return TextTable(headings, rows, report.spec, report.licence, right=(1, 2, 4, 5))


def _sizes(split: SplitReport) -> str:
    common = sorted(split.sizes.items(), key=lambda item: -item[1])
    more = f", {len(common) - 3} more" if len(common) > 3 else ""
    return ", ".join(size if len(common) == 1 else f"{size} ({n})" for size, n in common[:3]) + more


def _classes_table(report: DatasetReport) -> TextTable:
    """Return one row per class and one column per split: share of pixels, images that hold it."""
    rows = [
        (counts[0].name, *(f"{count.pixel_share:.2%} ({count.images})" for count in counts))
        for counts in zip(*(split.classes for split in report.splits), strict=True)
    ]
    headings = ("class", *(split.split for split in report.splits))
    title = "share of labelled pixels (images)"
    return TextTable(headings, rows, title, right=range(1, len(headings)))
