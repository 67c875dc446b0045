"""How far an export is: a bar on a terminal, one line per event in a log file."""

import logging
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# Told what is being done, how much of it is done, and how much there is (0: nobody knows).
Progressing = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


class ExportProgress:
    """A bar for the step that runs now, on stderr; lines scroll by above it.

    Warnings that libraries log meanwhile are held back: they are about the libraries themselves.

    Args:
        console: on stderr; without a terminal the bar is left out.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("exporting", total=None)

    def __enter__(self) -> "ExportProgress":
        """Start the bar."""
        self._logging_before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar off the terminal."""
        self._bar.stop()
        logging.disable(self._logging_before)

    def tell(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar; see Progressing."""
        if what != self._bar.tasks[0].description:  # a new step: its time starts at 0
            self._bar.reset(self._task, description=what)
        self._bar.update(self._task, completed=done, total=total or None)
