"""A build takes minutes: run it aside, show how far it is, and stop it at Ctrl-C."""

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, TextIO, Tuple, TypeVar

from fastseg_runtime.arrays.progress import StatusLine

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


def run_build(work: Callable[[], T], status: BuildStatus, progress: Optional[Progress]) -> T:
    """Run a build in a thread of its own, reporting every half second.

    Only so can Ctrl-C be noticed while TensorRT's C++ code runs, and is there a sign of life
    from releases that report no progress.

    Raises:
        KeyboardInterrupt: at Ctrl-C, after the build has stopped if this TensorRT can stop.
    """
    result: Future[T] = Future()  # novm: not evaluated in a function

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    # A daemon: a build that cannot be cancelled must not outlive the program.
    thread = threading.Thread(target=run, daemon=True, name="TensorRT build")
    try:
        thread.start()  # in here: Ctrl-C may come before it returns
        while True:
            if progress is not None:
                progress(status)
            if wait([result], TICK_S).done:
                return result.result()
    except BaseException:
        status.cancelled = True
        wait([result], CANCEL_S)
        raise


class ProgressPrinter(StatusLine):
    """Writes the status of a build to stderr."""

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        super().__init__(PLAIN_LINE_S, stream)

    def __enter__(self) -> "ProgressPrinter":
        """Return the printer itself."""
        return self

    def __call__(self, status: BuildStatus) -> None:
        """Show it."""
        self.show(f"building the TensorRT engine: {status.seconds:.0f} s, {status}")
