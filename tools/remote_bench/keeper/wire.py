"""Frames from the workstation, events to it.

In: one line of JSON, then as many raw bytes as its "bytes" says. Out: lines `@TOKEN {json}`, so
that what a login shell prints is not mistaken for ours. Both directions have a silence limit: a
workstation that sleeps, or a network that drops packets, is noticed without TCP's help.
"""

import json
import os
import select
import threading
from typing import Any, Dict, Iterator

SILENCE_S = 20.0  # the workstation pings every second or two
_LONGEST_LINE = 1 << 20
_CHUNK = 1 << 16
_PIPE_BUF = 4096  # so much can be written without blocking once select() says so (Linux)


class Gone(Exception):
    """The workstation closed the connection or fell silent."""


class Wire:
    """Two file descriptors; events may be sent from any thread."""

    def __init__(self, token: str, incoming: int = 0, outgoing: int = 1) -> None:
        self._prefix = f"@{token} ".encode("ascii")
        self._incoming, self._outgoing = incoming, outgoing
        self._buffer = b""
        self._lock = threading.Lock()
        self._gone = threading.Event()

    def frame(self) -> Dict[str, Any]:
        """Wait for the next frame and return its line.

        Raises:
            Gone: the connection ended, or nothing came within SILENCE_S.
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LONGEST_LINE:
                raise Gone("the workstation sent a line without an end")
            self._buffer += self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        table: Dict[str, Any] = json.loads(line.decode("utf-8"))
        return table

    def body(self, count: int) -> Iterator[bytes]:
        """Yield the raw bytes that follow a frame, `count` in all."""
        while count > 0:
            chunk = self._buffer or self._read()
            chunk, self._buffer = chunk[:count], chunk[count:]
            count -= len(chunk)
            yield chunk

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._incoming], [], [], SILENCE_S)
        chunk = os.read(self._incoming, _CHUNK) if ready else b""
        if not chunk:
            self._gone.set()
            raise Gone("the connection ended" if ready else "the workstation fell silent")
        return chunk

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event; never raises, and is dropped when nobody reads any more."""
        text = json.dumps(dict(fields, event=event))  # ASCII: any locale, any bytes in a path
        self.relay(self._prefix + text.encode("ascii") + b"\n")

    def is_ours(self, line: bytes) -> bool:
        """Tell whether a line of the agent is an event."""
        return line.startswith(self._prefix) and line.endswith(b"\n")

    def relay(self, line: bytes) -> None:
        """Send a line as it is; the same promises."""
        with self._lock:
            while line and not self._gone.is_set():
                line = line[self._write(line[:_PIPE_BUF]) :]

    def _write(self, piece: bytes) -> int:
        try:
            if select.select([], [self._outgoing], [], SILENCE_S)[1]:
                return os.write(self._outgoing, piece)
        except OSError:  # closed
            pass
        self._gone.set()
        return 0

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait; return whether the workstation is gone."""
        return self._gone.wait(timeout_s)
