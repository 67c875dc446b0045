"""What the agent says, on stdout.

Writing never blocks a measurement: a thread writes, and a peer that reads no more loses messages.
"""

import os
import queue
import sys
import threading
from typing import Any, Optional

from ..messages import encode

_MOST_WAITING = 1000  # minutes of progress, and less than a megabyte
_FLUSH_S = 5.0  # for the last ones; the peer takes them at once or not at all


class Failure(Exception):
    """Why a run ends early: an error event, whose kind is for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """Sends events; thread-safe."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._waiting: queue.Queue[Optional[bytes]] = queue.Queue(_MOST_WAITING)
        self._writer = threading.Thread(target=self._write_all, daemon=True)
        self._writer.start()

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event."""
        try:
            self._waiting.put_nowait(encode(event, self._token, **fields))
        except queue.Full:  # the peer reads no more
            return

    def close(self) -> None:
        """Wait a bounded time until all is written."""
        try:
            self._waiting.put(None, timeout=_FLUSH_S)
        except queue.Full:
            return
        self._writer.join(_FLUSH_S)

    def _write_all(self) -> None:
        for line in iter(self._waiting.get, None):
            try:
                os.write(sys.stdout.fileno(), line)
            except OSError:  # the connection is gone; keep emptying the queue
                continue
