"""What a terminal shows: text from outside, one line of progress, and tables.

What may stand in a name, and how to show what may not. A line that is overwritten on a terminal and
comes now and then elsewhere. Tables whose names stay whole at every width.
"""

import re
import sys
import textwrap
import time
import unicodedata
from contextlib import suppress
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, TextIO, TypeVar

# Controls (a terminal obeys them), half characters (no file takes them), breaks of lines, and marks
# that turn what follows them around. Joiners stay: Persian, Hindi and emoji need them.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNFIT = re.compile(f"[{_CONTROLS}]")
_UNSHOWN = re.compile(f"(?![\n\t])[{_CONTROLS}]")
_TERMINAL_S = 0.1  # between texts that overwrite each other
_CLEAR = "\r\x1b[2K"
Line = TypeVar("Line", bound="StatusLine")
_GAP = 2  # blanks between columns


def is_plain(text: str, longest: int) -> bool:
    """Return whether a text is short enough and free of control characters."""
    return len(text) <= longest and _UNFIT.search(text) is None


def printable(text: str) -> str:
    """Return a text with control characters as \\u001b: still JSON where it was JSON."""
    return _UNSHOWN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


class StatusLine:
    """A text that changes; a context manager that leaves a clean line behind.

    Args:
        plain_s: seconds between lines where the output is no terminal.
    """

    def __init__(self, plain_s: float, stream: Optional[TextIO] = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = getattr(self._stream, "isatty", bool)()  # None: an app has no stderr
        self._pause_s = _TERMINAL_S if self._terminal else plain_s
        self._next_s = time.monotonic()

    def show(self, text: object) -> None:
        """Write a text unless the last one is too young."""
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + self._pause_s
            self._write(f"{_CLEAR}{text!s:.100}" if self._terminal else f"{text}\n")

    def clear(self) -> None:
        """Clean the line, for what somebody else prints."""
        if self._terminal:
            self._write(_CLEAR)

    def __enter__(self: Line) -> Line:
        """Return the line itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Clean the line."""
        self.clear()

    def _write(self, text: str) -> None:
        with suppress(AttributeError, OSError, ValueError):  # there is none, it is full or closed
            self._stream.write(text)
            self._stream.flush()


class ProgressLine(StatusLine):
    """Shows how far a loop is, and how fast; counts "frames", or what else it is given."""

    def __init__(self, what: str) -> None:
        super().__init__(plain_s=10.0)
        self._what, self._start = what, time.monotonic()
        if not self._terminal:  # nothing of what is over soon
            self._next_s += self._pause_s

    def __call__(self, done: int, total: int = 0) -> None:
        """Show `done` of `total`; a total of 0 means that nobody knows it."""
        rate = done / max(time.monotonic() - self._start, 1e-9)
        text = f"{done}/{total} {self._what}" if total else f"{done} {self._what}"
        if rate:
            text += f", {rate:.1f} a second"
            text += f", {(total - done) / rate:.0f} s left" if total else ""
        self.show(text)


class TextTable(NamedTuple):  # no dataclass: --help does not wait for inspect
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
