"""The report as one HTML file: no script, no outside file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from compare_models.results import Results
from compare_models.sheets import Sheet, sheets_of

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .wide { overflow-x: auto } .note { color: #666; max-width: 55rem }
"""


def html_page(results: Results, pictures: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        results: of a run.
        pictures: PNGs by file name.
    """
    facts = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    body = [
        "<h1>Networks side by side</h1>",
        f'<p class="note">{escape(facts)}<br><code>{escape(results.command)}</code></p>',
        *(_picture(name, png) for name, png in pictures.items()),
        *(_table(sheet) for sheet in sheets_of(results)),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>compare_models</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in sheet.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows
    )
    return (
        f'<h2>{escape(sheet.title)}</h2><div class="wide"><table><tr>{head}</tr>{rows}</table>'
        f'</div><p class="note">{escape(sheet.note)}</p>'
    )
