import io
import re
import sys

import pytest
from fastseg_runtime.arrays.progress import ProgressLine


class Terminal(io.StringIO):
    """Keeps what is written."""

    def isatty(self) -> bool:
        return True


Patch = pytest.MonkeyPatch


def terminal_for(monkeypatch: Patch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_nothing_is_forecast_before_anything_is_done(monkeypatch: Patch) -> None:
    terminal = terminal_for(monkeypatch)
    with ProgressLine("frames") as progress:
        progress(0, 3)
    assert terminal.getvalue() == "\r\x1b[2K0/3 frames\r\x1b[2K"


@pytest.mark.parametrize(
    ("total", "text"), [(0, r"5 frames, .* a second"), (9, r"5/9 frames, .* a second, 0 s left")]
)
def test_a_rate_is_shown_and_where_the_total_is_known_the_rest(
    total: int, text: str, monkeypatch: Patch
) -> None:
    terminal = terminal_for(monkeypatch)
    with ProgressLine("frames") as progress:
        progress(5, total)
    assert re.search(text, terminal.getvalue())


def test_a_line_that_somebody_else_prints_stands_alone(monkeypatch: Patch) -> None:
    terminal = terminal_for(monkeypatch)
    with ProgressLine("done") as progress:
        progress(0, 3)
        progress.clear()
        print("a.png", file=sys.stderr)
    assert "\r\x1b[2Ka.png\n" in terminal.getvalue()


def test_a_log_of_a_short_run_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("done") as progress:
        progress(1, 3)
    assert capsys.readouterr().err == ""
