"""A report on the terminal."""

from __future__ import annotations

from typing import Any

from fastseg_runtime.arrays.text_table import TextTable
from rich.console import Group, RenderableType
from rich.text import Text

from remote_bench.host.plain import plain
from remote_bench.report.facts import headline, sections

_STYLES = {"valid": "bold green", "valid_with_notes": "bold yellow", "invalid": "bold red"}
_SEVERITIES = {"invalid": "red", "note": "yellow", "info": "dim"}


def render(report: dict[str, Any]) -> RenderableType:
    """Return the report for rich.print: the verdict and its reasons, then every figure."""
    # Text, never markup: a board may be called "[red]".
    verdict = Text(report["verdict"].replace("_", " "), _STYLES[report["verdict"]])
    verdict.append(f"   {plain(headline(report))}", style="bold")
    reasons = [
        Text(f"  {plain(reason['message'])}", _SEVERITIES[reason["severity"]])
        for reason in report["reasons"]
    ]
    board = report["host"] or report["device"]["model"] or "board"
    return Group(Text(plain(board), "bold"), verdict, *reasons, _figures(report))


def _figures(report: dict[str, Any]) -> TextTable:
    rows = []
    for section in sections(report):
        rows.append((section.title, "", ""))
        rows += [(f"  {plain(r.label)}", plain(r.value), plain(r.note)) for r in section.rows]
    return TextTable((), rows)
