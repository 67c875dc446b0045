"""A host is a place where a command can be started: over SSH, or here."""

from typing import Protocol


class Stream(Protocol):
    """A command that runs on a host. Its stderr is read all the time and its end is kept."""

    def send(self, data: bytes) -> None:
        """Write to its stdin; blocks while it does not read, until close().

        Raises:
            OSError: it reads no more.
        """

    def receive(self) -> bytes:
        """Return the next bytes of its stdout, b"" after the last; blocks until close()."""

    def errors(self) -> str:
        """Return the end of what it wrote to stderr."""

    def status(self, timeout_s: float) -> int | None:
        """Wait for its exit status; None if it has none by then."""

    def close(self) -> None:
        """Break the connection to it at once; its stdin ends. Never blocks for long."""


class Host(Protocol):
    """A board, or this machine."""

    name: str  # as the user gave it
    address: str  # what the name was resolved to, for messages and reports

    def start(self, command: str) -> Stream:
        """Start a command line, which the login shell parses: give it no data.

        Connects anew where the connection broke.

        Raises:
            Unreachable: no connection, or no answer in time.
        """

    def close(self) -> None:
        """Break all connections."""
