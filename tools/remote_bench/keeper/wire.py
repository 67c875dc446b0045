"""The keeper's end of the connection: requests come in, replies and events go out."""

import errno
import os
import select
import threading
from typing import Any, Dict, List

from ..messages import Messages, encode

SILENCE_S = 20.0  # the workstation pings every 2 s: ten are lost before it counts as gone
_STDIN, _STDOUT = 0, 1
_CHUNK = 1 << 16  # a pipe of Linux holds no more
_PIPE_BUF = 4096  # so much can be written without blocking once select() says so (Linux)


class Gone(Exception):
    """The workstation closed the connection or fell silent."""


class Wire:
    """The keeper's stdin and stdout; messages may be sent from any thread.

    Both directions have a silence limit: a workstation that sleeps, or a network that drops
    packets, is noticed without TCP's help.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self._messages = Messages()
        self._waiting: List[Dict[str, Any]] = []
        self._lock = threading.Lock()
        self._gone = threading.Event()

    def receive(self) -> Dict[str, Any]:
        """Wait for the next message.

        Raises:
            Gone: the connection ended, brought something else, or nothing within SILENCE_S.
        """
        while not self._waiting:
            self._waiting = self._messages.feed(self._read())
            if self._messages.noise:
                raise Gone("the workstation sent what is no message")
        return self._waiting.pop(0)

    def _read(self) -> bytes:
        ready, _, _ = select.select([_STDIN], [], [], SILENCE_S)
        chunk = os.read(_STDIN, _CHUNK) if ready else b""
        if not chunk:
            self._gone.set()
            raise Gone("the connection ended" if ready else "the workstation fell silent")
        return chunk

    def emit(self, event: str, **fields: Any) -> None:
        """Send one message; never raises, and is dropped when nobody reads any more."""
        line = encode(event, self.token, **fields)
        with self._lock:
            while line and not self._gone.is_set():
                line = line[self._write(line[:_PIPE_BUF]) :]

    def _write(self, piece: bytes) -> int:
        try:
            if select.select([], [_STDOUT], [], SILENCE_S)[1]:
                return os.write(_STDOUT, piece)
        except OSError:  # closed
            pass
        self._gone.set()
        return 0

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait; return whether the workstation is gone."""
        return self._gone.wait(timeout_s)


class Refusal(Exception):
    """Why the board cannot do what was asked: a kind for programs, a message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    def reply(self) -> Dict[str, Any]:
        """Return the fields of a reply."""
        return {"ok": False, "kind": self.kind, "message": self.message}


def of_os_error(error: OSError) -> Refusal:
    """Name what the system said."""
    kinds = {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EROFS: "read_only",
        errno.EACCES: "denied",
        errno.EPERM: "denied",
    }
    place = f"{error.filename!r}: " if error.filename else ""
    return Refusal(kinds.get(error.errno or 0, "system"), f"{place}{error.strerror or error}")
