"""Progress of a training on stderr: a bar on a terminal, a line per evaluation in a log file."""

import math
import time

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastseg.progress import StderrProgress

SMOOTHING = 0.05  # of the images per second


class TrainingProgress(StderrProgress):
    """Shows loss, mIoU, images per second and the time that is left, if it is visible at all."""

    def __init__(self, visible: bool = True) -> None:
        super().__init__(
            TextColumn("training"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}{task.fields[score]}"),
            TextColumn("{task.fields[images_per_s]:.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            transient=False,
            quiet=not visible,
        )
        self._task = self.add_task("training", total=1.0, loss=math.nan, score="", images_per_s=0.0)
        self._images_per_s = 0.0
        self._last = time.monotonic()

    def show(self, progress: float, loss: float, images: int) -> None:
        """Note a step: how far the training is, 0 to 1, and how many images the step has seen."""
        now = time.monotonic()
        rate, self._last = images / (now - self._last), now
        previous = self._images_per_s or rate
        self._images_per_s = previous + SMOOTHING * (rate - previous)
        self.update(self._task, completed=progress, loss=loss, images_per_s=self._images_per_s)

    def report(self, step: int, loss: float, miou: float) -> None:
        """Show an evaluation; miou is NaN where there is none."""
        score = "" if math.isnan(miou) else f", mIoU {miou:.4f}"
        self.update(self._task, score=score)
        if not self.console.is_terminal:
            rate = f"{self._images_per_s:.0f} images/s"
            self.tell(f"step {step}: loss {loss:.3f}{score}, {rate}")
        self._last = time.monotonic()
