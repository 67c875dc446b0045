"""Lines of a running tegrastats, each stamped on arrival with the monotonic clock.

It adds GPU load and memory clock to what sysfs shows, and its power is held against sysfs'. It may
be missing, stall, flood, end or print half a line: then what came counts, and `failure` says so.
Lines are not read here: they are kept as they came.
"""

import os
import select
import signal
import subprocess
import threading
import time
from typing import List, Optional, Tuple

from .board import Board
from .process import start

_MOST_LINES = 100000  # nearly three hours at 10 Hz
_MOST_LINE_BYTES = 8192  # the longest that was captured has 590
_FIRST_S = 3.0  # it prints five lines a second, once it has started
_SILENT_S = 2.0  # at the end: it prints ten lines a second
_LOOK_S = 0.25  # how late the thread notices that it should end
_FLOOD = 5  # times the wanted rate


def first_line(board: Board) -> Optional[str]:
    """Return the first line that tegrastats prints; None where there is none in time."""
    feed = TegrastatsFeed(board, hz=5)
    feed.start()
    end = time.monotonic() + _FIRST_S
    while not feed.lines and not feed.failure and time.monotonic() < end:
        time.sleep(0.02)
    feed.stop()
    return feed.lines[0][1] if feed.lines else None


class TegrastatsFeed:
    """One tegrastats process and the thread that reads it."""

    def __init__(self, board: Board, hz: float) -> None:
        self._program = board.tool("tegrastats")
        self._hz = hz
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._stopping = False
        self.lines: List[Tuple[float, str]] = []
        self.dropped = 0
        self.failure = "" if self._program else "tegrastats is not on this board"

    def start(self) -> None:
        """Start reading, where there is one."""
        if self._program:
            self._thread.start()

    def pause(self) -> None:
        """Stop the process where it is: it costs nothing until resume()."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process and the thread."""
        last_s = self.lines[-1][0] if self.lines else 0.0
        if not self.failure and time.monotonic() - last_s > _SILENT_S:
            self.failure = "tegrastats fell silent"
        self._stopping = True
        self._signal(signal.SIGKILL)
        if self._thread.is_alive():
            self._thread.join(5)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _read_all(self) -> None:
        command = [str(self._program), "--interval", str(int(1000 / self._hz))]
        try:
            self._process = start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            self.failure = f"tegrastats did not start: {error}"
            return
        assert self._process.stdout is not None
        rest, pipe = b"", self._process.stdout.fileno()
        while not self._stopping:
            if not select.select([pipe], [], [], _LOOK_S)[0]:
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                self.failure = self.failure or ("" if self._stopping else "tegrastats ended")
                break
            *whole, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MOST_LINE_BYTES:]
            for line in whole:
                self._keep(time.monotonic(), line)
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()

    def _keep(self, now: float, line: bytes) -> None:
        most = int(_FLOOD * self._hz) + 1
        flood = len(self.lines) >= most and now - self.lines[-most][0] < 1
        if flood or len(self.lines) >= _MOST_LINES:
            self.dropped += 1
            return
        text = line[:_MOST_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
        self.lines.append((now, text))
