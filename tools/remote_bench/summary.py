"""A report on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from remote_bench.facts import headline, sections
from remote_bench.plain import plain

_STYLES = {"valid": "bold green", "valid_with_notes": "bold yellow", "invalid": "bold red"}
_SEVERITIES = {"invalid": "red", "note": "yellow", "info": "dim"}


def render(report: dict[str, Any]) -> RenderableType:
    """Return the report for rich.print: the verdict and its reasons, then every figure."""
    verdict = Text(report["verdict"].replace("_", " "), style=_STYLES[report["verdict"]])
    verdict.append(f"   {plain(headline(report))}", style="bold")
    lines = [verdict]
    for reason in report["reasons"]:
        lines.append(Text(f"  {plain(reason['message'])}", style=_SEVERITIES[reason["severity"]]))
    title = Text(plain(report["host"] or report["device"]["model"] or "board"))
    return Group(Panel(Group(*lines), title=title, title_align="left"), _figures(report))


def _figures(report: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    table.add_column(style="dim")
    for section in sections(report):
        table.add_row(Text(section.title, style="bold"), "", "")
        for row in section.rows:
            # Text, never markup: a board may be called "[red]".
            cells = (f"  {row.label}", row.value, row.note)
            table.add_row(*(Text(plain(cell) if i else f"  {plain(cell)}") for i, cell in
                            enumerate(cells)))  # fmt: skip
    return table
