"""What a measurement tells whoever watches it, and how it is called off."""

import threading
from typing import Protocol

from fastseg_runtime.arrays.command import INTERRUPTED

from remote_bench.host.errors import BenchError


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
        self._exit_code = INTERRUPTED

    def set(self, exit_code: int = INTERRUPTED) -> None:
        """Call everything off; the exit code says which signal did."""
        self._exit_code = exit_code
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if it was called off."""
        if self._event.is_set():
            stop = Interrupted("interrupted; the board was cleaned up")
            stop.exit_code = self._exit_code
            raise stop
