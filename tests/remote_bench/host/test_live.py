import io

from remote_bench.host.live import LiveView
from rich.console import Console

HOSTILE = "[red]bo\x1b[31mard[/red]\n\u202e"


def test_a_terminal_shows_a_row_for_each_board_with_its_step_and_rate():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    view = LiveView(console, ["orin", HOSTILE])
    view.rows["orin"].phase("run")
    view.rows["orin"].progress(5, 20, 31.5)
    view.rows[HOSTILE].phase(HOSTILE)
    console.print(view._table())
    shown = console.file.getvalue()
    assert "orin" in shown and "31.5 FPS" in shown
    assert "[red]bo [31mard[/red]" in shown  # as text: neither markup nor an escape


def test_a_narrow_terminal_keeps_names_whole_and_shortens_the_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    view = LiveView(console, ["a-board-with-a-long-name.local"])
    row = view.rows["a-board-with-a-long-name.local"]
    row.phase("self-test")
    row.progress(5, 20, 31.5)
    console.print(view._table())
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1
    for part in ("a-board-with-a-long-name.local", "self-test", "31.5 FPS"):
        assert part in lines[0]


def test_without_a_terminal_each_step_is_a_line_and_hostile_text_stays_one_line():
    console = Console(file=io.StringIO(), force_terminal=False, width=100)
    with LiveView(console, ["orin"]) as view:
        view.rows["orin"].phase("build")
        view.rows["orin"].note(HOSTILE)
    assert console.file.getvalue() == "orin: build\norin: [red]bo [31mard[/red]\n"
