"""Look at every file of a data set; report and show what is in it and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from fastseg_runtime.arrays.terminal import TextTable, printable
from rich.console import Group
from rich.text import Text

from fastseg.data.dataset import SPLITS, DataError, MissingSplitError, UnknownLabelError
from fastseg.data.file_dataset import FileDataset, Problem, as_problem
from fastseg.data.loaders import full_spec, load_split, recognise_spec
from fastseg.data.survey import SplitReport, Survey, obstacles
from fastseg.progress import show_progress

_LISTED = 20  # problems shown; the report itself has all


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
    recognised: str = ""  # what a path alone was taken for

    @property
    def ok(self) -> bool:
        """Whether training can start: no problem anywhere, no picture in two splits."""
        broken = any(split.problems for split in self.splits) or bool(self.problems)
        return not broken and not any(overlap.kind == "pixels" for overlap in self.overlaps)


def check_dataset(
    spec: str, progress: bool = False, allow_missing_classes: bool = False
) -> DatasetReport:
    """Read every file of every split, with a bar if asked; broken ones are reported, not raised."""
    try:
        recognised = recognise_spec(spec)
    except DataError as error:
        return DatasetReport(spec, "", (), (), (as_problem(error),), ())
    spec = full_spec(spec)
    reports, surveys, problems = [], dict[str, Survey](), []
    for split in SPLITS:
        try:
            dataset = load_split(spec, split)
        except MissingSplitError:
            continue
        except DataError as error:
            problems.append(as_problem(error))
            if not surveys:
                break  # the path, the kind or the class list: the same for every split
            continue
        surveys[split] = Survey(dataset)
        reports.append(_check_split(surveys[split], progress))
    if not reports and not problems:
        problems.append(Problem(spec, f"has none of the splits {', '.join(SPLITS)}"))
    train, val = surveys.get("train"), surveys.get("val")
    if train is not None:
        found = obstacles(spec, train, val, allow_missing_classes)
        problems += [Problem(spec, text) for text in found]
    elif reports:
        problems.append(Problem(spec, "has no split train"))
    overlaps = tuple(_overlaps({split: survey.digests for split, survey in surveys.items()}))
    warnings = dict.fromkeys(_warnings(surveys, overlaps))
    licence = next((survey.dataset.licence for survey in surveys.values()), "")
    return DatasetReport(
        spec,
        licence,
        tuple(reports),
        overlaps,
        tuple(problems),
        tuple(warnings),
        str(recognised or ""),
    )


def _check_split(survey: Survey, progress: bool) -> SplitReport:
    """Read a whole split and return what it holds, with what is wrong of each file."""
    dataset, unknown = survey.dataset, Counter[str]()
    problems = list(dataset.problems) if isinstance(dataset, FileDataset) else []
    indices: Iterable[int] = range(len(dataset))
    if progress:
        indices = show_progress(indices, f"checking {dataset.split}", len(dataset))
    for index in indices:
        try:
            survey[index]
        except UnknownLabelError as error:
            unknown.update(error.pixels)
            problems.append(as_problem(error))
        except DataError as error:
            problems.append(as_problem(error))
    return survey.report(problems, dict(unknown))


def _overlaps(digests: dict[str, dict[str, str]]) -> Iterable[Overlap]:
    for first, second in combinations(digests, 2):
        if names := sorted(digests[first].keys() & digests[second].keys()):
            yield Overlap((first, second), "name", tuple(names))
        seen = set(digests[first].values())
        if names := sorted(name for name, digest in digests[second].items() if digest in seen):
            yield Overlap((first, second), "pixels", tuple(names))


def _warnings(surveys: dict[str, Survey], overlaps: Iterable[Overlap]) -> Iterable[str]:
    for split in SPLITS:
        if surveys and split not in surveys:
            yield f"no split {split}"
    for overlap in overlaps:
        pair = " and ".join(overlap.splits)
        what = "names" if overlap.kind == "name" else "pictures"
        yield f"{pair} share {len(overlap.names)} {what}, e.g. {overlap.names[0]}"
    train = surveys.get("train")
    size = train.most_frequent_size() if train is not None and train.sizes else None
    if train is not None and len(train.sizes) > 1:
        yield train.input_size()
    for survey in surveys.values():
        yield from survey.remarks(size)
        if not len(survey):
            yield f"{survey.dataset.split} is empty"


def render_report(report: DatasetReport) -> Group:
    """Return the report as tables and lines for rich's console.print()."""
    parts: list[TextTable | Text] = [_line(report.recognised)] if report.recognised else []
    parts.append(_splits_table(report))
    if report.splits:
        parts.append(_classes_table(report))
    for split in report.splits:
        unknown = sorted(split.unknown_labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{value} ({pixels} px)" for value, pixels in unknown[:_LISTED])
        if shown:
            parts.append(_line(f"{split.split}: unknown label values {shown}", "red"))
    found = [*report.problems, *(p for split in report.splits for p in split.problems)]
    problems = list(dict.fromkeys(found))  # what lies beside all splits is a problem of each
    parts += [_line(f"{problem.file}: {problem.message}", "red") for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        parts.append(_line(f"and {len(problems) - _LISTED} more problems; --json has all", "red"))
    parts += [_line(f"warning: {warning}", "yellow") for warning in report.warnings]
    parts.append(_line("ready to train" if report.ok else "not ready to train: see above"))
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style)  # a file's name may hold what a terminal obeys


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
    shares = [
        {count.name: f"{count.pixel_share:.2%} ({count.images})" for count in split.classes}
        for split in report.splits
    ]
    names = dict.fromkeys(name for of_split in shares for name in of_split)
    rows = [(name, *(of_split.get(name, "") for of_split in shares)) for name in names]
    headings = ("class", *(split.split for split in report.splits))
    title = "share of labelled pixels (images)"
    return TextTable(headings, rows, title, right=range(1, len(headings)))
