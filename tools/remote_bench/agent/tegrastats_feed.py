"""Lines of a running tegrastats, each stamped on arrival with the monotonic clock.

tegrastats may be missing, stall, flood, end or print half a line. It is started again with growing
pauses; what happened is kept in `events`. Lines are not read here: they are kept as they came.
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

_PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # after each end; then it is given up
_MOST_LINES = 100000  # nearly three hours at 10 Hz
_MOST_LINE_BYTES = 8192  # the longest that was captured has 590
_FIRST_S = 3.0  # it prints five lines a second, once it has started
_FLOOD = 5  # times the wanted rate


def first_line(board: Board) -> Optional[str]:
    """Return the first line that tegrastats prints; None where there is none in time."""
    feed = TegrastatsFeed(board, hz=5)
    if feed.failure:
        return None
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
        self._stall_s = max(2.0, 10 / hz)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._stopping = threading.Event()
        self._paused = threading.Event()
        self.lines: List[Tuple[float, str]] = []
        self.events: List[Tuple[float, str]] = []
        self.dropped = 0
        self.failure = "" if self._program else "tegrastats is not on this board"

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def pause(self) -> None:
        """Stop the process where it is: it costs nothing until resume()."""
        self._paused.set()
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        self._signal(signal.SIGCONT)
        self._paused.clear()

    def stop(self) -> None:
        """End the process and the thread."""
        self._stopping.set()
        self._signal(signal.SIGKILL)
        if self._thread.is_alive():
            self._thread.join(5)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _read_all(self) -> None:
        for pause_s in _PAUSES_S:
            reason = self._read_one_process()
            if self._stopping.is_set():
                return
            self.events.append((time.monotonic(), reason))
            self._stopping.wait(pause_s)
        self.failure = f"tegrastats {reason}, {len(self.events)} times"

    def _read_one_process(self) -> str:
        command = [str(self._program), "--interval", str(int(1000 / self._hz))]
        try:
            self._process = start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            return f"did not start: {error}"
        assert self._process.stdout is not None
        try:
            return self._read_pipe(self._process.stdout.fileno())
        finally:
            self._process.kill()
            self._process.stdout.close()
            self._process.wait()

    def _read_pipe(self, pipe: int) -> str:
        rest, heard = b"", time.monotonic()
        while not self._stopping.is_set():
            ready, _, _ = select.select([pipe], [], [], 0.25)
            now = time.monotonic()
            if self._paused.is_set():
                heard = now
            if not ready:
                if now - heard > self._stall_s:
                    return "stalled"
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                return "ended"
            heard = now
            *whole, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MOST_LINE_BYTES:]
            for line in whole:
                self._keep(now, line)
        return "stopped"

    def _keep(self, now: float, line: bytes) -> None:
        most = int(_FLOOD * self._hz) + 1
        flood = len(self.lines) >= most and now - self.lines[-most][0] < 1
        if flood or len(self.lines) >= _MOST_LINES:
            self.dropped += 1
            return
        text = line[:_MOST_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
        self.lines.append((now, text))
