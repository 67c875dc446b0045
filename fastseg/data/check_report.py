"""Show a DatasetReport on a terminal."""

from __future__ import annotations

from fastseg_runtime.arrays.text_table import TextTable
from rich.console import Group
from rich.text import Text

from fastseg.data.check import DatasetReport, SplitReport

_LISTED = 20  # problems shown; the report itself has all


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
