import io
import re
import sys
import unicodedata
from contextlib import suppress

import pytest
from fastseg_runtime.arrays.terminal import ProgressLine, StatusLine, TextTable
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console


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


@pytest.mark.parametrize("kind", ["full", "closed", "none"])
def test_a_line_that_cannot_be_written_ends_nothing(kind: str, monkeypatch: Patch) -> None:
    stream = None if kind == "none" else open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", stream)
    with StatusLine(0.0) as line:
        if stream and kind == "closed":
            stream.close()
        line.show("one")
        line.show("two")
    if stream:
        with suppress(OSError):
            stream.close()


def test_a_log_of_a_short_run_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("done") as progress:
        progress(1, 3)
    assert capsys.readouterr().err == ""


HEADINGS = ("target", "needs", "verified here by")
ROWS = (
    ("cpu-int8-weights", "pip install 'fastseg-edge[onnx]'", "ONNX Runtime"),
    ("[bold]my-board[/]", "pip install 'fastseg-edge[tflite]'", "torch, operation by operation"),
)
TABLE = TextTable(HEADINGS, ROWS, "the [red]title", "a note")
WORDS = st.text(st.characters(codec="utf-8"), max_size=25)


def printed(table: TextTable, width: int, soft_wrap: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(table, soft_wrap=soft_wrap)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40])
@pytest.mark.parametrize("soft_wrap", [True, False])
def test_names_headings_and_brackets_are_whole_at_every_width(width: int, soft_wrap: bool) -> None:
    text = printed(TABLE, width, soft_wrap)
    for part in ("cpu-int8-weights", "[bold]my-board[/]", "'fastseg-edge[tflite]'", "[red]title"):
        assert part in text
    for heading in ("target", "needs"):
        assert heading in text or width < 80
    assert max(map(len, text.splitlines())) <= width


def test_a_table_too_wide_for_a_terminal_becomes_records() -> None:
    assert TABLE.lines(50)[1:] == [
        "cpu-int8-weights",
        "  needs: pip install 'fastseg-edge[onnx]'",
        "  verified here by: ONNX Runtime",
        "[bold]my-board[/]",
        "  needs: pip install 'fastseg-edge[tflite]'",
        "  verified here by: torch, operation by operation",
        "a note",
    ]


def test_figures_stand_at_the_right_and_text_at_the_left() -> None:
    table = TextTable(("network", "ms"), (("nano", "9.5"), ("base", "110.0")), right=(1,))
    assert table.lines(80) == [
        "network     ms",
        "-------  -----",
        "nano       9.5",
        "base     110.0",
    ]


def test_a_table_without_a_head_is_rows_alone() -> None:
    table = TextTable((), (("Speed", "", ""), ("  p50", "9.5 ms", "of 30 frames")))
    assert table.lines(80) == ["Speed", "  p50  9.5 ms  of 30 frames"]
    assert table.lines(16) == ["Speed", "  p50: 9.5 ms;", "    of 30 frames"]


def test_text_of_double_width_stays_in_its_column() -> None:
    table = TextTable(("name", "x"), (("道路", "1"), ("road", "2")))
    assert table.lines(80)[2:] == ["道路  1", "road  2"]


def test_an_empty_table_is_its_title() -> None:
    assert TextTable((), (), "nothing").lines(80) == ["nothing"]
    assert [line.strip() for line in TextTable(("a", ""), (("", ""),)).lines(80)] == ["a", "-"]


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=5), st.integers(1, 120))
def test_no_word_is_lost_and_no_control_character_printed(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    lines = TextTable(("a", "b", "c"), rows).lines(width)
    text = "\n".join(lines)
    assert all(c == "\n" or unicodedata.category(c)[0] != "C" for c in text)
    shown = set(text.replace(":", " ").split())
    wanted = " ".join(" ".join(row) for row in rows)
    words = "".join(c if c.isprintable() else " " for c in wanted).replace(":", " ").split()
    assert set(words) <= shown
