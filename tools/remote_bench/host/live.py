"""The two consoles, what a board may write there, and all measurements while they go on."""

import threading
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

log = Console(stderr=True, highlight=False)
out = Console(highlight=False)
_PER_S = 4  # refreshes
_MOST_CHARACTERS = 2000  # a trace of an engine, and no flood


def plain(text: object) -> str:
    """Return a board's text in one line, without characters that change how its rest reads."""
    shown = str(text)[:_MOST_CHARACTERS]
    return "".join(c if c.isprintable() else " " for c in shown).strip()


class Row:
    """One board. Any thread may tell it things."""

    def __init__(self, name: str, view: "LiveView") -> None:
        self.name, self._view = name, view
        self.step, self.since = "waiting", time.monotonic()
        self.done, self.total, self.fps = 0.0, 0.0, 0.0

    def phase(self, name: str) -> None:
        """Begin a step."""
        self.step, self.since = name, time.monotonic()
        self.done = self.total = 0.0
        self._view.stepped(self)

    def progress(self, done: float, total: float | None, fps: float | None = None) -> None:
        """Advance a step."""
        self.done, self.total, self.fps = done, total or 0.0, fps or self.fps

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        self._view.say(f"{self.name}: {text}")


class LiveView:
    """A context manager: a live table on a terminal, else one line a step."""

    def __init__(self, console: Console, names: list[str]) -> None:
        self._console = console
        self._lock = threading.Lock()
        self.rows = {name: Row(name, self) for name in names}
        self._live = Live(
            console=console, refresh_per_second=_PER_S, transient=True, get_renderable=self._table
        )

    def __enter__(self) -> "LiveView":
        """Show it."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        with self._lock:
            self._console.print(Text(plain(text)), soft_wrap=True)

    def stepped(self, row: Row) -> None:
        """Print a step where there is no live table."""
        if not self._console.is_terminal:
            self.say(f"{row.name}: {row.step}")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for is_bar in (False, False, False, True, False):  # the bar gives way, names never do
            table.add_column(no_wrap=not is_bar, overflow="ignore")
        for row in list(self.rows.values()):
            # Text, never markup: what a board says may hold anything.
            bar = ProgressBar(total=row.total or 1.0, completed=row.done)
            seconds = f"{time.monotonic() - row.since:.0f} s"
            fps = f"{row.fps:.1f} FPS" if row.fps else ""
            table.add_row(Text(plain(row.name), "bold"), Text(plain(row.step)), seconds,
                          bar if row.total else "", fps)  # fmt: skip
        return table
