"""What the agent says: framed JSON lines on stdout, and the same in a journal on the disk.

A line is `@TOKEN {json}`: a noisy login shell or an engine that prints cannot be mistaken for it.
Writing never blocks a measurement: a thread writes, and a peer that reads no more loses lines.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any, Optional

_MOST_WAITING = 1000
_FLUSH_S = 5.0


class Channel:
    """Sends events; thread-safe."""

    def __init__(self, token: str, journal: Optional[str] = None) -> None:
        self._token = token
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._journal = None if journal is None else os.open(journal, flags, 0o600)
        self._waiting: queue.Queue[Optional[bytes]] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._writer = threading.Thread(target=self._write_all, daemon=True)
        self._writer.start()

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event and, unless it is a heartbeat, write it into the journal."""
        table = dict(fields, event=event)
        if event != "heartbeat":
            self.note(**table)
        line = f"@{self._token} {json.dumps(table)}\n".encode("ascii")
        try:
            self._waiting.put_nowait(line)
        except queue.Full:  # the peer reads no more; the journal has it
            return

    def note(self, **fields: Any) -> None:
        """Write one entry into the journal alone, with the monotonic time."""
        if self._journal is None:
            return
        line = json.dumps(dict(fields, t=time.monotonic())).encode("ascii") + b"\n"
        with self._lock:
            try:
                os.write(self._journal, line)
            except OSError:  # the disk is full: what counts is in memory too
                return

    def close(self) -> None:
        """Wait a bounded time until all is written."""
        try:
            self._waiting.put(None, timeout=_FLUSH_S)
        except queue.Full:
            return
        self._writer.join(_FLUSH_S)
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _write_all(self) -> None:
        for line in iter(self._waiting.get, None):
            try:
                os.write(sys.stdout.fileno(), line)
            except OSError:  # the connection is gone; keep emptying the queue
                continue
