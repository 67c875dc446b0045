"""Samples power, temperatures, clocks and memory while the worker runs.

A thread of the supervisor, not of the worker: the frames that are timed share no interpreter lock
with it. It can be paused, which is how its own cost is measured.
"""

import threading
import time
from typing import Any, Dict, List, Optional

from .board import Board
from .environment import Environment
from .process import available_memory_kb, busy_cpu_seconds, cores_in_use, memory_kb
from .rails import Source, power_sources
from .settings import SettingsWatch
from .tegrastats_feed import TegrastatsFeed

_ENVIRONMENT_S = 1.0  # heat and clocks change slower; each reading costs dozens of files
_PROCESS_A_READING_S = 0.5  # a source that starts a process for each reading must be slow
_MOST_SAMPLES = 200000  # five hours at 10 Hz


class Series:
    """The readings of one source."""

    def __init__(self, source: Source, period_s: float) -> None:
        self._source = source
        self._period_s = _PROCESS_A_READING_S if source.name == "pmic" else period_s
        self._due = 0.0
        self._times: List[float] = []
        self._values: List[List[Optional[float]]] = []

    def sample(self) -> None:
        """Read the source if it is due; the time is the middle of the reading."""
        begin = time.monotonic()
        if begin < self._due or len(self._times) >= _MOST_SAMPLES:
            return
        values = self._source.read()
        self._times.append(round((begin + time.monotonic()) / 2, 4))
        self._values.append(values)
        self._due = max(self._due + self._period_s, begin)

    def data(self) -> Dict[str, Any]:
        """Return the readings as JSON: times in s, one row of values a time."""
        return {
            "source": self._source.name,
            "unit": self._source.unit,
            "rails": self._source.rails,
            "wraps_at": self._source.wraps_at,
            "t": self._times,
            "values": self._values,
        }


class Sampler:
    """Runs from start() to stop(), except between pause() and resume()."""

    def __init__(self, board: Board, hz: float) -> None:
        self._period_s = 1 / hz
        self.environment = Environment(board)
        self._feed = TegrastatsFeed(board, hz)
        self._settings = SettingsWatch(board)
        self._series = [Series(source, self._period_s) for source in power_sources(board)]
        self._samples: List[Dict[str, Any]] = []
        self._stopping, self._running = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._sample_all, daemon=True)
        self._threads: Dict[str, int] = {}  # of the worker, and their CPU time so far
        self.pid: Optional[int] = None  # of the worker; set when it is there

    def start(self) -> None:
        """Start sampling."""
        self._running.set()
        self._feed.start()
        self._thread.start()

    def pause(self) -> None:
        """Take no samples until resume()."""
        self._running.clear()
        self._feed.pause()

    def resume(self) -> None:
        """Go on."""
        self._feed.resume()
        self._running.set()

    def stop(self) -> None:
        """End the thread and tegrastats."""
        self._stopping.set()
        self._running.set()
        self._feed.stop()
        self._thread.join(5)

    def data(self) -> Dict[str, Any]:
        """Return everything that was sampled, as JSON."""
        feed = self._feed
        return {
            "power": [series.data() for series in self._series],
            "tegrastats": {
                "lines": feed.lines,
                "dropped": feed.dropped,
                "failure": feed.failure,
            },
            "environment": self._samples,
            "changes": self._settings.changes,
        }

    def _sample_all(self) -> None:
        environment_due = time.monotonic()
        while not self._stopping.is_set():
            self._running.wait()
            now = time.monotonic()
            for series in self._series:
                series.sample()
            if now >= environment_due and len(self._samples) < _MOST_SAMPLES:
                self._samples.append(self._sample_environment(now))
                environment_due = now + _ENVIRONMENT_S
            self._stopping.wait(max(0.001, now + self._period_s - time.monotonic()))

    def _sample_environment(self, now: float) -> Dict[str, Any]:
        sample = dict(self.environment.read(), t=round(now, 3))
        sample["available_kb"] = available_memory_kb()
        sample["busy_cpu_s"] = busy_cpu_seconds()
        self._settings.look(now)
        if self.pid is not None:
            sample["worker"] = memory_kb(self.pid)
            sample["ran_on"], self._threads = cores_in_use(self.pid, self._threads)
        return sample
