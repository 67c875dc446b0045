"""The agent as a child process: its events go to the workstation and into a log."""

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import threading
from typing import Any, Dict, List, Optional

from .wire import Wire

EVENTS, STATUS = "events.log", "status.json"
_LONGEST_LINE = 1 << 20
_ERRORS_KEPT = 1 << 14  # bytes of stderr's end
_END_S = 45.0  # the agent gives back the power mode before it ends


class Child:
    """One run of the agent, in a process group of its own."""

    def __init__(self, wire: Wire, folder: str, mode: str, request: Dict[str, Any]) -> None:
        self._wire, self._folder = wire, folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        self._log = os.open(os.path.join(folder, EVENTS), flags)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, STATUS))  # of an earlier agent
        self._errors = b""
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "agent", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=own_environment(folder),
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._relay, self._drain)
        ]
        for thread in self._threads:
            thread.start()
        self._send(request)
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def _send(self, request: Dict[str, Any]) -> None:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except OSError:  # it died at once; its status says how
            return

    def _relay(self) -> None:
        output: Any = self._process.stdout
        for line in iter(lambda: output.readline(_LONGEST_LINE), b""):
            if self._wire.is_ours(line):
                self._wire.relay(line)
                self._keep(line)

    def _keep(self, line: bytes) -> None:
        if b'"heartbeat"' not in line:
            try:
                os.write(self._log, line)
            except OSError:  # the disk is full: the workstation has it
                return

    def _drain(self) -> None:
        errors: Any = self._process.stderr
        for chunk in iter(lambda: errors.read1(4096), b""):
            self._errors = (self._errors + chunk)[-_ERRORS_KEPT:]

    def _wait(self) -> None:
        status = self._process.wait()
        self._kill()  # what the agent itself left in its group
        for thread in self._threads:
            thread.join(5)
        ended = {"status": status, "stderr": self._errors.decode("utf-8", "replace")}
        try:
            with open(os.path.join(self._folder, STATUS), "w") as file:
                json.dump(ended, file)
        except OSError:  # the disk is full, or the folder is gone
            pass
        self._wire.emit("ended", **ended)

    def wait(self, timeout_s: Optional[float] = None) -> bool:
        """Wait until it has ended; return whether it has."""
        self._waiter.join(timeout_s)
        return not self._waiter.is_alive()

    def stop(self) -> None:
        """Ask it to end by closing its stdin; kill its group when it does not."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
        except OSError:
            pass
        if not self.wait(_END_S):
            self._kill()
            self.wait(5)

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:  # nobody left
            return


def own_environment(folder: str) -> Dict[str, str]:
    """Return an environment in which whatever an engine writes lands in the run folder.

    ONNX Runtime 1.32 keeps telemetry in the user's cache and temporary folder, and sends it.
    """
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/.cache"}
    own = {name: os.path.join(folder, place) for name, place in places.items()}
    for path in own.values():
        os.makedirs(path, 0o700, exist_ok=True)
    own["PYTHONUSERBASE"] = site.getuserbase()  # what the user installed stays in reach
    return dict(os.environ, LC_ALL="C", ORT_DISABLE_TELEMETRY="1", **own)


def read_log(folder: str) -> List[bytes]:
    """Return the events that a run has logged so far."""
    try:
        with open(os.path.join(folder, EVENTS), "rb") as file:
            return file.readlines()
    except FileNotFoundError:
        return []


def read_status(folder: str) -> Dict[str, Any]:
    """Return how a run's agent ended; status None where it was cut off."""
    try:
        with open(os.path.join(folder, STATUS)) as file:
            ended: Dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return {"status": None, "stderr": ""}
    return ended
