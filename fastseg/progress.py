"""Progress on stderr: a bar where that is a terminal, with lines that scroll by above it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
# Names of networks and files hold brackets: they are no markup.
DESCRIPTION = TextColumn("{task.description}", markup=False)


class StderrProgress(Progress):
    """A context manager: rich's bar, which is left out where nobody would see it move.

    Args:
        columns: of the bar.
        transient: False leaves its last state on the terminal.
        quiet: True prints nothing at all.
    """

    def __init__(
        self, *columns: ProgressColumn, transient: bool = True, quiet: bool = False
    ) -> None:
        console = Console(stderr=True, highlight=False, quiet=quiet)
        hidden = not console.is_terminal
        super().__init__(*columns, console=console, transient=transient, disable=hidden)

    def tell(self, line: str) -> None:
        """Print a line, as it is, above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)


def show_progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items with a bar."""
    columns = (DESCRIPTION, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with StderrProgress(*columns) as bar:
        yield from bar.track(items, total, description=description)
