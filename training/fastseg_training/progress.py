"""A training and the one who watches it: progress on stderr, and Ctrl-C or SIGTERM.

Progress is a bar on a terminal, a line per evaluation in a log file. Signals are heard at once and
obeyed between two steps.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
SMOOTHING = 0.05  # of the images per second
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def show_progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items with a bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(items, total, description=description)


class TrainingProgress:
    """Shows loss, mIoU, images per second and the time that is left.

    Args:
        visible: False for the helpers of a training in several processes.
    """

    def __init__(self, visible: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not visible)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}{task.fields[score]}"),
            TextColumn("{task.fields[images_per_s]:.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=1.0, loss=math.nan, score="", images_per_s=0.0
        )
        self._images_per_s = 0.0
        self._last = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the terminal."""
        self._bar.stop()

    def show(self, progress: float, loss: float, images: int) -> None:
        """Note a step.

        Args:
            progress: 0 to 1.
            loss: as it is to be shown.
            images: how many the step has seen.
        """
        now = time.monotonic()
        rate, self._last = images / (now - self._last), now
        previous = self._images_per_s or rate
        self._images_per_s = previous + SMOOTHING * (rate - previous)
        self._bar.update(self._task, completed=progress, loss=loss, images_per_s=self._images_per_s)

    def report(self, step: int, loss: float, miou: float) -> None:
        """Show an evaluation; miou is NaN where there is none."""
        score = "" if math.isnan(miou) else f", mIoU {miou:.4f}"
        self._bar.update(self._task, score=score)
        if not self._console.is_terminal:
            rate = f"{self._images_per_s:.0f} images/s"
            self._console.print(f"step {step}: loss {loss:.3f}{score}, {rate}")
        self._last = time.monotonic()


class StopRequest:
    """While entered, the first signal sets `requested`; a second one stops Python as usual.

    Outside of the main thread signals cannot be caught, and nothing is.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
