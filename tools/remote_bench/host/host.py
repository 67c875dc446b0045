"""What the other rooms know of a host: commands start there, somebody watches, and calls it off."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from fastseg_runtime.arrays.command import INTERRUPTED

from remote_bench.host.errors import BenchError

Ask = Callable[[str], str | None]  # prompt -> what somebody typed; None: there is nobody to ask
_TAIL_BYTES = 1 << 14  # of stderr: a trace of any depth


class Stream(ABC):
    """A command that runs on a host. Its stderr is read all the time and its end is kept."""

    def __init__(self) -> None:
        self._tail = b""
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        while chunk := self._receive_error():
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]

    def errors(self) -> str:
        """Return the end of what it wrote to stderr."""
        self._drainer.join(1)
        return self._tail.decode("utf-8", "replace")

    @abstractmethod
    def _receive_error(self) -> bytes:
        """Return the next bytes of its stderr, b"" after the last."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Write to its stdin; blocks while it does not read, until close().

        Raises:
            OSError: it reads no more.
        """

    @abstractmethod
    def receive(self) -> bytes:
        """Return the next bytes of its stdout, b"" after the last; blocks until close()."""

    @abstractmethod
    def status(self, timeout_s: float) -> int | None:
        """Wait for its exit status; None if it has none by then."""

    @abstractmethod
    def close(self) -> None:
        """Break the connection to it at once; its stdin ends. Never blocks for long."""


class Host(Protocol):
    """A board, or this machine."""

    name: str  # as the user gave it
    address: str  # what the name was resolved to, for messages and reports
    user: str  # who is logged in there; "" where nobody had to
    known_as: list[str]  # other names of it, of jump hosts and of who logs in there
    weakened: list[str]  # what the user's own configuration takes from the trust in it, for reports

    def start(self, command: str) -> Stream:
        """Start a command line, which the login shell parses: give it no data.

        Connects anew where the connection broke.

        Raises:
            Unreachable: no connection, or no answer in time.
        """

    def close(self) -> None:
        """Break all connections."""


class Watch(Protocol):
    """Whoever watches what is done on a host: its row on the terminal."""

    def phase(self, name: str) -> None:
        """A step begins."""

    def progress(self, done: float, total: float | None, fps: float | None = None) -> None:
        """A step advances; in bytes, seconds or frames."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Interrupted(BenchError):
    """Somebody called it off."""

    exit_code = INTERRUPTED


class Cancel:
    """Set from one thread, noticed by others at their next check()."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._exit_code, self._why = INTERRUPTED, "interrupted"

    def set(self, exit_code: int = INTERRUPTED, why: str = "interrupted") -> None:
        """Call everything off; the exit code says which signal did."""
        self._exit_code, self._why = exit_code, why
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if it was called off."""
        if self._event.is_set():
            stop = Interrupted(f"{self._why}; the board was cleaned up")
            stop.exit_code = self._exit_code
            raise stop
