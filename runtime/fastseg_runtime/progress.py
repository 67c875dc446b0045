"""One line of progress on stderr: overwritten on a terminal, now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Optional, TextIO, Type

_TERMINAL_S, _PLAIN_S = 0.1, 10.0  # seconds between lines


class ProgressLine:
    """Shows how far a loop is; a context manager that leaves a clean line behind.

    Args:
        what: name of what is counted, "frames".
        stream: default: stderr.
    """

    def __init__(self, what: str, stream: Optional[TextIO] = None) -> None:
        self._what, self._stream = what, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._next = self._start + (0 if self._terminal else _PLAIN_S)

    def __call__(self, done: int, total: int = 0) -> None:
        """Show `done` of `total`; a total of 0 means that nobody knows it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_TERMINAL_S if self._terminal else _PLAIN_S)
        rate = done / max(now - self._start, 1e-9)
        text = f"{done} {self._what}, {rate:.1f} a second"
        if total:
            text = f"{done}/{total} {self._what}, {rate:.1f} a second, "
            text += f"{(total - done) / max(rate, 1e-9):.0f} s left"
        self._stream.write(f"\r\x1b[2K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()

    def __enter__(self) -> "ProgressLine":
        """Return the line itself."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Clean the line."""
        if self._terminal:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
