"""A run that went on without its workstation, followed by the next one."""

import os
import threading
import time
from typing import Any, Dict

from .child import read_log, read_status
from .folder import is_alive, read_marker, remove_run
from .refusal import Refusal
from .wire import Wire

_LOOK_S = 0.5


class Detached:
    """Sends the events of the run as if its agent were ours, and then "ended"."""

    def __init__(self, wire: Wire, ours: str, run: str) -> None:
        self._wire, self._ours, self._run = wire, ours, run
        self.path = os.path.join(ours, run)
        marker = read_marker(self.path) if os.path.basename(run) == run else None
        if marker is None or not marker.get("detached"):
            raise Refusal("no_run", f"there is no detached run {run} on this board")
        self.facts: Dict[str, Any] = marker
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        sent, alive = 0, True
        while alive:
            alive = is_alive(self.path)  # before reading: what it wrote last is read too
            lines = [line for line in read_log(self.path) if self._wire.is_ours(line)]
            for line in lines[sent:]:
                self._wire.relay(line)
            sent = len(lines)
            if alive:
                time.sleep(_LOOK_S)
        self._wire.emit("ended", **read_status(self.path))

    def remove(self) -> None:
        """Delete its folder."""
        if is_alive(self.path):
            raise Refusal("running", f"run {self._run} has not ended; its folder stays")
        remove_run(self._ours, self._run)
