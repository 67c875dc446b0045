"""What a measurement tells whoever watches it, and how it is called off."""

import threading
from typing import Protocol

from remote_bench.host.errors import INTERRUPTED, BenchError


class Interrupted(BenchError):
    """Somebody called it off."""

    exit_code = INTERRUPTED


class Watch(Protocol):
    """One board's row on the terminal."""

    def phase(self, name: str) -> None:
        """A step begins."""

    def progress(self, done: float, total: float | None, fps: float | None = None) -> None:
        """A step advances; in bytes, seconds or frames."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Cancel:
    """Set from one thread, noticed by others at their next check()."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Call everything off."""
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if it was called off."""
        if self._event.is_set():
            raise Interrupted("interrupted; the board was cleaned up")
