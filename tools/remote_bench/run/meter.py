"""A meter of the user's, read beside a run: a command on this machine that prints watts a line.

Its lines are stamped here; a run's phases, which both machines know, tell how the clocks differ.
"""

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from remote_bench.analysis.result import MeterReadings, Phase
from remote_bench.host.live import plain

_WATTS = re.compile(rb"\s*([+-]?[0-9]{1,9}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?)\s*W?\s*")
_MOST_WATTS = 1e9
_MOST_READINGS = 200_000  # five hours at ten a second
_MOST_LINE_BYTES = 4096  # a number has ten
_LOOK_S = 0.1  # how late the reader notices that it should end
_END_S = 2.0  # that it gets to end by itself
_SAID_CHARACTERS = 200


class Meter:
    """Reads a command's lines from begin to end of a `with`; never raises, and leaves no process.

    Args:
        command: program and arguments, run as they are; none: there is no meter.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._rows: list[tuple[float, float]] = []  # monotonic s of this machine, W
        self._phases: dict[str, float] = {}  # when the board's phases were heard of here
        self._unread, self._failure = b"", ""
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: BinaryIO = io.BytesIO()  # what the command says there
        self._thread = threading.Thread(target=self._read_all, daemon=True)

    def __enter__(self) -> "Meter":
        """Start the command, where there is one."""
        if self._command:
            self._errors = tempfile.TemporaryFile()
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=self._errors, start_new_session=True,
                )  # fmt: skip
                self._thread.start()
            except (OSError, ValueError) as error:
                self._failure = f"it did not start: {error}"
        return self

    def __exit__(self, *error: object) -> None:
        """End it, and all that it has started."""
        process, self._stopping = self._process, True
        if process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
            self._thread.join(_END_S)
        self._errors.close()

    def phase(self, name: str) -> None:
        """A phase of the board's has begun just now."""
        self._phases[name] = time.monotonic()

    def readings(self, phases: Sequence[Phase]) -> MeterReadings | None:
        """Return what was read, in the board's time; None without a meter or a run beside it.

        There is none beside it where a detached run had ended when its events were heard, all at
        once. The clocks differ by no more than the soonest news of a phase says, and by less only
        as far as that took its way: milliseconds.
        """
        if not self._command or (not self._rows and self._came_late(phases)):
            return None
        ahead = [self._phases[p.name] - p.begin for p in phases if p.name in self._phases]
        if not ahead or not self._rows:
            return MeterReadings((), (), self._failure or self._why_none())
        times = tuple(t - min(ahead) for t, _ in self._rows)
        missed = self._why_none() if self._unread else ""  # the mean may hang on those lines
        told = "; ".join(filter(None, (self._failure, missed)))
        return MeterReadings(times, tuple(watts for _, watts in self._rows), told)

    def _came_late(self, phases: Sequence[Phase]) -> bool:
        heard = [self._phases[p.name] for p in phases if p.name in self._phases]
        took_s = max((p.begin for p in phases), default=0) - min(
            (p.begin for p in phases), default=0
        )
        return len(heard) > 1 and max(heard) - min(heard) < took_s / 2

    def _why_none(self) -> str:
        if self._unread:
            said = plain(self._unread.decode("utf-8", "replace"))[:_SAID_CHARACTERS]
            return f"it printed {said!r}; expected watts, a number a line"
        return "it printed nothing; expected watts, a number a line (unbuffered)"

    def _read_all(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        rest, pipe = b"", self._process.stdout
        while not self._stopping:
            if not select.select([pipe], [], [], _LOOK_S)[0]:
                continue
            chunk, now = os.read(pipe.fileno(), 1 << 16), time.monotonic()
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MOST_LINE_BYTES:]
            for line in lines:
                self._keep(now, line)
        if not self._stopping:
            self._failure = f"it ended with status {self._process.wait()}: {self._said()}"
        pipe.close()

    def _keep(self, now: float, line: bytes) -> None:
        found = _WATTS.fullmatch(line)
        if found is None or not abs(float(found.group(1))) < _MOST_WATTS:
            self._unread = self._unread or line.strip()[:_MOST_LINE_BYTES]
        elif len(self._rows) < _MOST_READINGS:
            self._rows.append((now, float(found.group(1))))

    def _said(self) -> str:
        self._errors.seek(0)
        text = self._errors.read(_MOST_LINE_BYTES).decode("utf-8", "replace")
        return plain(text.strip().rpartition("\n")[2])[:_SAID_CHARACTERS] or "it said nothing"
