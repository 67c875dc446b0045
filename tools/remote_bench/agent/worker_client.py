"""The supervisor's hold of the worker process: commands go in, answers and frames come out."""

import os
import re
import resource
import select
import subprocess
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from ..messages import Messages, encode
from .channel import Failure
from .process import available_memory_kb, module_command, module_environment, oom_kills, start

_SAID_BYTES = 2000  # of the worker's log in an error: an engine's last lines
_LOG_BYTES = 1 << 16  # of it, in which a driver's complaint is looked for
# Of a Jetson's driver, on stderr, where its GPU gets no memory; no error of TensorRT has it.
NVMAP = re.compile(r"NvMap[^\n]*error 12\b")
_NVMAP_ADVICE = (
    "the board's driver said NvMap error 12: memory ran out, or what is free is in pieces too "
    "small. End other programs and the desktop (sudo systemctl isolate multi-user.target); reboot, "
    "which joins the pieces; or take a smaller network"
)
_MAY_BE_MEMORY = ("build_failed", "no_engine", "run_failed", "worker_died")
_LOOK_S = 0.1  # how late a wait notices that the run was called off
END_S = 10.0  # of a killed process; where a driver hangs the kernel keeps it for ever


class Aborted(Exception):
    """The run was called off: the connection died, or a signal came."""


class Worker:
    """One worker process. Every wait ends when `abort` is set or the time is over."""

    def __init__(self, paths: List[str], log: str, abort: threading.Event) -> None:
        self._abort, self._log = abort, log
        self._messages = Messages()
        self._waiting: List[Dict[str, Any]] = []
        self._oom_kills = oom_kills()
        with open(log, "ab") as errors:
            self._process = start(
                [*module_command("worker"), *paths],
                env=module_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.pid = self._process.pid

    def ask(
        self,
        command: str,
        timeout_s: float,
        on_frames: Optional[Callable[[Dict[str, Any]], None]] = None,
        **arguments: Any,
    ) -> Dict[str, Any]:
        """Send one command and return its answer; frames on the way go to on_frames.

        Raises:
            Failure: it failed, died or did not answer in time.
            Aborted: the run was called off meanwhile.
        """
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), encode(command, **arguments))
        except OSError as error:
            raise self._death() from error
        end = time.monotonic() + timeout_s
        while True:
            message = self._message(end)
            event = message.pop("event")
            if event == "error":
                raise self._failure(message["kind"], message["message"])
            if event == "answer":
                return message
            if on_frames is not None:
                on_frames(message["columns"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._status()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _message(self, end: float) -> Dict[str, Any]:
        while not self._waiting:
            if self._abort.is_set():
                raise Aborted()
            if time.monotonic() > end:
                raise Failure(
                    "timeout",
                    "the worker gave no answer in time: the board is slow, or an engine hangs"
                    + self._said(),
                )
            self._receive()
        return self._waiting.pop(0)

    def _receive(self) -> None:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if not select.select([pipe], [], [], _LOOK_S)[0]:
            return
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            raise self._death()
        self._waiting = self._messages.feed(chunk)

    def _status(self) -> Optional[int]:
        try:
            return self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            return None

    def _death(self) -> Failure:
        status = self._status()
        if status is None:
            hangs = f"the worker hung up and did not end within {END_S:.0f} s: a driver hangs, "
            return Failure("worker_died", hangs + "reboot the board" + self._said())
        if status in (-9, 137):
            return Failure(
                "oom",
                "the worker was killed, probably because the board ran out of memory "
                f"({self._memory_facts()}); free some, add swap, or take a smaller network"
                + self._said(),
            )
        died = f"the worker ended with status {status}" + self._said()
        return self._failure("worker_died", died)

    def _failure(self, kind: str, message: str) -> Failure:
        """Return the failure; one for memory where a Jetson's driver said so."""
        if kind in _MAY_BE_MEMORY and NVMAP.search(tail(self._log, _LOG_BYTES)):
            return Failure("oom", f"{message}; {_NVMAP_ADVICE}")
        return Failure(kind, message)

    def _memory_facts(self) -> str:
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        facts = [f"it had {peak_mb:.0f} MB"]
        before, now, available = self._oom_kills, oom_kills(), available_memory_kb()
        if before is not None and now is not None:
            facts.append(f"{now - before} kills for memory by the kernel")
        if available is not None:
            facts.append(f"{available / 1024:.0f} MB are free now")
        return ", ".join(facts)

    def _said(self) -> str:
        text = tail(self._log, _SAID_BYTES)
        return f"; it said: {text}" if text else ""


def tail(path: str, most_bytes: int) -> str:
    """Return the end of a text file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - most_bytes))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
