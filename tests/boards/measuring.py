"""Measurements as the tests of faults take them: short, watched, and looked after."""

import time

from remote_bench.analysis.report import Report
from remote_bench.host.host import Cancel
from remote_bench.host.ssh import SshHost
from remote_bench.link.connection import LIMITS
from remote_bench.run.benchmark import Benchmark, Measurement
from remote_bench.run.measurement import measure

from tests.boards.sshd import processes_in

SHORT = {"seconds": 0.4, "warmup_s": 0.1, "idle_s": 0.1, "allow_busy": True}  # 100 frames and more
NOTICED_S = 15  # a frozen peer, a cut link
CLEAN_S = 60  # the board, whatever happened; 45 s of them are nvpmodel's at the worst
ENDED_S = 60  # any command, after the fault


class Watcher:
    """Remembers what a measurement says, and when a phase began; `at` calls a function then."""

    def __init__(self, **at) -> None:
        self.phases: list[str] = []
        self.began: dict[str, float] = {}
        self.fractions: list[float] = []
        self.notes: list[str] = []
        self._at = at

    def phase(self, name: str) -> None:
        self.phases.append(name)
        self.began.setdefault(name, time.monotonic())
        if name in self._at:
            self._at.pop(name)()

    def progress(self, done, total, fps=None) -> None:
        self.fractions.append(done / total if total else 0.0)

    def note(self, text: str) -> None:
        self.notes.append(text)


def connect(name: str) -> SshHost:
    return SshHost(name, lambda prompt: None)


def wait_until_clean(sshd, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while sshd.left() and time.monotonic() < end:
        time.sleep(0.1)
    assert sshd.left() == []


def wait_until_over(sshd) -> None:
    """Wait until the board's end of a broken connection has cleaned up."""
    end = time.monotonic() + 30
    while processes_in(sshd.board) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_in(sshd.board) == []


def run(host, watcher=None, cancel=None, limits=LIMITS, **benchmark) -> Report:
    wanted = Benchmark(**{**SHORT, **benchmark})
    return measure(Measurement(host, wanted, watcher or Watcher(), cancel or Cancel(), limits))
