"""Show a DatasetReport on a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fastseg.data.check import DatasetReport, SplitReport

_LISTED = 20  # problems shown; the report itself has all


def render_report(report: DatasetReport) -> Group:
    """Return the report as tables and lines for rich's console.print()."""
    parts: list[Table | Text] = [_splits_table(report)]
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


def _splits_table(report: DatasetReport) -> Table:
    table = Table(title=escape(report.spec), caption=escape(report.licence) or None)
    for heading in ("split", "pairs", "readable", "sizes", "ignored", "problems"):
        table.add_column(heading, justify="left" if heading in ("split", "sizes") else "right")
    for split in report.splits:
        table.add_row(
            split.split,
            str(split.pairs),
            str(split.readable),
            _sizes(split),
            f"{split.ignored_share:.1%}",
            str(len(split.problems)),
        )
    return table


def _sizes(split: SplitReport) -> str:
    common = sorted(split.sizes.items(), key=lambda item: -item[1])
    more = f", {len(common) - 3} more" if len(common) > 3 else ""
    return ", ".join(size if len(common) == 1 else f"{size} ({n})" for size, n in common[:3]) + more


def _classes_table(report: DatasetReport) -> Table:
    """Return one row per class and one column per split: share of pixels, images that hold it."""
    table = Table("class", title="share of labelled pixels (images)")
    for split in report.splits:
        table.add_column(split.split, justify="right")
    for counts in zip(*(split.classes for split in report.splits), strict=True):
        cells = (f"{count.pixel_share:.2%} ({count.images})" for count in counts)
        table.add_row(escape(counts[0].name), *cells)
    return table
