"""The agent as a child process: its events go to the workstation, and into the run's one log.

Where the workstation left, the run is detached, and the next one reads them from the log.
"""

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Optional

from ..messages import Messages, encode
from .folder import is_alive, read_marker, remove_run
from .wire import Refusal, Wire

EVENTS, STATUS, RESULT = "events.log", "status.json", "result.json"
_CHUNK = 1 << 16  # a pipe of Linux holds no more
_ERRORS_KEPT = 1 << 14  # bytes of stderr's end: a trace of any depth
_END_S = 45.0  # it gives back the power mode before it ends; nvpmodel may take 30 s
_LOOK_S = 0.5  # how late the events of a detached run come


class Child:
    """One run of the agent, in a process group of its own."""

    def __init__(self, wire: Wire, folder: str, mode: str, request: Dict[str, Any]) -> None:
        self._wire, self._folder = wire, folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        self._log = os.open(os.path.join(folder, EVENTS), flags)
        for name in (STATUS, RESULT):  # of an earlier agent
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        self._errors = b""
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "remote_bench.agent", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=own_environment(folder),
            start_new_session=True,
        )
        self._threads = [_started(self._relay), _started(self._drain)]
        self._send(request)
        self._waiter = _started(self._wait)

    def _send(self, request: Dict[str, Any]) -> None:
        stdin: Any = self._process.stdin
        with contextlib.suppress(OSError):  # it died at once; its status says how
            stdin.write(json.dumps(request).encode("ascii") + b"\n")
            stdin.flush()

    def _relay(self) -> None:
        output: Any = self._process.stdout
        messages = Messages(self._wire.token)
        for chunk in iter(lambda: output.read1(_CHUNK), b""):
            for event in messages.feed(chunk):
                self._wire.emit(**event)
                if event["event"] != "heartbeat":
                    with contextlib.suppress(OSError):  # the disk is full: the workstation has it
                        os.write(self._log, encode(**event))

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
        path = os.path.join(self._folder, STATUS)
        with contextlib.suppress(OSError), open(path, "w") as file:
            json.dump(ended, file)  # unless the disk is full, or the folder gone
        self._wire.emit("ended", **ended)

    def wait(self, timeout_s: Optional[float] = None) -> bool:
        """Wait until it has ended; return whether it has."""
        self._waiter.join(timeout_s)
        return not self._waiter.is_alive()

    def stop(self) -> None:
        """Ask it to end by closing its stdin; kill its group when it does not."""
        stdin: Any = self._process.stdin
        with contextlib.suppress(OSError):
            stdin.close()
        if not self.wait(_END_S):
            self._kill()
            self.wait(5)

    def _kill(self) -> None:
        with contextlib.suppress(OSError):  # nobody left
            os.killpg(self._process.pid, signal.SIGKILL)


def _started(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


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


class DetachedRun:
    """A run that went on without its workstation: its events as if its agent were ours, "ended"."""

    def __init__(self, wire: Wire, ours: str, run: str) -> None:
        self._wire, self._ours, self._run = wire, ours, run
        self.path = os.path.join(ours, run)
        marker = read_marker(self.path) if os.path.basename(run) == run else None
        if marker is None or not marker.get("detached"):
            raise Refusal(
                "no_run", f"there is no detached run {run} on this board any more; measure again"
            )
        self.facts: Dict[str, Any] = marker
        self._log = os.open(os.path.join(self.path, EVENTS), os.O_RDONLY)
        _started(self._follow)

    def _follow(self) -> None:
        messages, alive = Messages(), True
        while alive:
            alive = is_alive(self.path)  # before reading: what it wrote last is read too
            for chunk in iter(lambda: os.read(self._log, _CHUNK), b""):
                for event in messages.feed(chunk):
                    self._wire.emit(**event)
            if alive:
                time.sleep(_LOOK_S)
        self._wire.emit("ended", **_read_status(self.path))

    def remove(self) -> None:
        """Delete its folder."""
        if is_alive(self.path):
            raise Refusal(
                "running", f"run {self._run} has not ended; its folder stays, --resume it later"
            )
        remove_run(self._ours, self._run)


def _read_status(folder: str) -> Dict[str, Any]:
    """Return how a run's agent ended; status None where it was cut off."""
    try:
        with open(os.path.join(folder, STATUS)) as file:
            ended: Dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return {"status": None, "stderr": ""}
    return ended
