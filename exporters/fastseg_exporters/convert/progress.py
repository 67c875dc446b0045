"""How far an export is: a bar on a terminal, one line per event in a log file."""

import logging
from collections.abc import Callable

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn

from fastseg.progress import DESCRIPTION, StderrProgress

# Told what is being done, how much of it is done, and how much there is (0: nobody knows).
Progressing = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


class ExportProgress(StderrProgress):
    """A bar for the step that runs now.

    Warnings that libraries log meanwhile are held back: they are about the libraries themselves.
    """

    def __init__(self) -> None:
        super().__init__(DESCRIPTION, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self.add_task("exporting", total=None)

    def start(self) -> None:
        """Show the bar."""
        self._logging_before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        super().start()

    def stop(self) -> None:
        """Take the bar off the terminal."""
        super().stop()
        logging.disable(self._logging_before)

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar; see Progressing."""
        if what != self.tasks[0].description:  # a new step: its time starts at 0
            self.reset(self._task, description=what)
        self.update(self._task, completed=done, total=total or None)
