"""A build takes minutes: run it aside, show how far it is, and stop it at Ctrl-C."""

import sys
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Callable, Dict, Generic, List, Optional, TextIO, Tuple, Type, TypeVar

T = TypeVar("T")
TICK_S = 0.5
PLAIN_LINE_S = 30.0  # between lines where the output is no terminal
CANCEL_S = 10.0  # how long a cancelled build may take to notice


@dataclass
class BuildStatus:
    """How far a build is. Written by TensorRT's threads, read by the one that waits."""

    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    phases: Dict[str, Tuple[int, int]] = field(default_factory=dict)  # name -> done, total

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        """Return the phases under way, outermost first: "Building Engine 1/3, Tactics 40/97"."""
        parts = [f"{name} {done}/{total}" for name, (done, total) in list(self.phases.items())]
        return ", ".join(parts) or "working"


Progress = Callable[[BuildStatus], None]


def make_monitor(trt: Any, status: BuildStatus) -> Optional[Any]:
    """Return a trt.IProgressMonitor that writes to a status; None before TensorRT 10."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class StatusMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Keeps the phases under way; returning False from a step stops the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            status.phases[phase_name] = (0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = status.phases.get(phase_name, (0, step + 1))[1]
            status.phases[phase_name] = (step + 1, total)
            return not status.cancelled

        def phase_finish(self, phase_name: str) -> None:
            status.phases.pop(phase_name, None)

    return StatusMonitor()


class _Worker(threading.Thread, Generic[T]):
    """A daemon, so that a build that cannot be cancelled does not outlive the program."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="TensorRT build")
        self._work = work
        self.results: List[T] = []
        self.error: Optional[BaseException] = None

    def run(self) -> None:
        try:
            self.results.append(self._work())
        except BaseException as error:
            self.error = error


def run_build(work: Callable[[], T], status: BuildStatus, progress: Optional[Progress]) -> T:
    """Run a build in a thread of its own, reporting every half second.

    Only so can Ctrl-C be noticed while TensorRT's C++ code runs, and is there a sign of life
    from releases that report no progress.

    Raises:
        KeyboardInterrupt: at Ctrl-C, after the build has stopped if this TensorRT can stop.
    """
    worker = _Worker(work)
    worker.start()
    try:
        while True:
            if progress is not None:
                progress(status)
            worker.join(TICK_S)
            if not worker.is_alive():
                break
    except BaseException:
        status.cancelled = True
        worker.join(CANCEL_S)
        raise
    if worker.error is not None:
        raise worker.error
    return worker.results[0]


class ProgressPrinter:
    """Writes the status of a build to stderr: one line that is overwritten on a terminal.

    A context manager: it leaves a clean line behind.
    """

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self._stream = stream or sys.stderr
        self._next_line_s = 0.0

    def __enter__(self) -> "ProgressPrinter":
        """Return the printer itself."""
        return self

    def __call__(self, status: BuildStatus) -> None:
        """Write a line, on a terminal over the last one, elsewhere now and then."""
        text = f"building the TensorRT engine: {status.seconds:.0f} s, {status}"
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{text[:100]}")
            self._stream.flush()
        elif status.seconds >= self._next_line_s:
            self._next_line_s = status.seconds + PLAIN_LINE_S
            self._stream.write(text + "\n")

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Clean the line."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
