"""One line of progress on stderr: overwritten on a terminal, now and then elsewhere."""

import sys
import time
from typing import Optional, TextIO, TypeVar

_TERMINAL_S = 0.1  # between texts that overwrite each other
_CLEAR = "\r\x1b[2K"
Line = TypeVar("Line", bound="StatusLine")


class StatusLine:
    """A text that changes; a context manager that leaves a clean line behind.

    Args:
        plain_s: seconds between lines where the output is no terminal.
    """

    def __init__(self, plain_s: float, stream: Optional[TextIO] = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
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
