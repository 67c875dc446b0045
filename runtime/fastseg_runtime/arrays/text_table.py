"""Tables of text that a terminal neither breaks nor hides: a name stays whole at every width."""

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence

_GAP = 2  # blanks between columns


@dataclass(frozen=True)
class TextTable:
    """A table that becomes a list of records where its columns do not fit side by side.

    Text breaks at blanks alone, and never in the first column, which names the rows. Control
    characters become blanks; brackets are brackets.

    Attributes:
        headings: of the columns; none for a table without a head.
        rows: as many texts each; blanks before a text stay, to indent it.
        title, note: lines above and below.
        right: numbers of the columns whose text stands at the right.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    right: Sequence[int] = ()

    def lines(self, width: int) -> List[str]:
        """Return the table for a terminal of so many columns.

        A line is longer only where a word alone is.
        """
        head = [self.headings] if self.headings else []
        rows = [[_plain(cell) for cell in row] for row in (*head, *self.rows)]
        widths = _column_widths(rows, width) if rows else []
        body = self._records(rows, width) if widths is None else self._side_by_side(rows, widths)
        title, note = (_wrapped(_plain(text), width) for text in (self.title, self.note))
        return [*title, *body, *note]

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """Let rich print it, where that is installed, at the width of its console."""
        text = "\n".join(self.lines(options.max_width))
        yield console.render_str(text, markup=False, highlight=False, emoji=False)

    def _side_by_side(self, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> List[str]:
        lines = []
        for number, row in enumerate(rows):
            cells = [_wrapped(cell, width) for cell, width in zip(row, widths)]
            for index in range(max(map(len, cells))):
                parts = [cell[index] if index < len(cell) else "" for cell in cells]
                lines.append(self._join(parts, widths))
            if number == 0 and self.headings:
                lines.append((" " * _GAP).join("-" * width for width in widths))
        return lines

    def _records(self, rows: Sequence[Sequence[str]], width: int) -> List[str]:
        if not self.headings:
            texts = (f"{name}: {'; '.join(filter(None, cells))}" for name, *cells in rows)
            return [line for text in texts for line in _wrapped(text.rstrip(": "), width, "    ")]
        lines = []
        for row in rows[1:]:
            lines.append(row[0])
            for heading, cell in zip(rows[0][1:], row[1:]):
                lines += _wrapped(f"  {heading}: {cell}", width, "    ")
        return lines

    def _join(self, parts: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for index, (part, width) in enumerate(zip(parts, widths)):
            blanks = " " * (width - _cells(part))
            padded.append(blanks + part if index in self.right else part + blanks)
        return (" " * _GAP).join(padded).rstrip()


def _column_widths(rows: Sequence[Sequence[str]], width: int) -> Optional[List[int]]:
    """Return widths that fit, every word whole; None if there are none."""
    columns = list(zip(*rows))
    most = [max(map(_cells, column)) for column in columns]
    words = [[word for cell in column for word in cell.split()] for column in columns]
    least = [max(map(_cells, column), default=0) for column in words]
    least[0] = most[0]
    spare = width - _GAP * (len(columns) - 1) - sum(least)
    if spare < 0:
        return None
    missing = sum(most) - sum(least)
    if missing <= spare:
        return most
    return [low + spare * (high - low) // missing for low, high in zip(least, most)]


def _wrapped(text: str, width: int, indent: str = "") -> List[str]:
    return textwrap.wrap(
        text,
        max(width, 1),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text)).rstrip()


def _cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
