import pytest
import typer
from remote_bench.host.console import one_line_errors


def test_an_error_of_this_machine_is_one_line_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr("remote_bench.host.console.signal.signal", lambda number, handler: None)

    @one_line_errors
    def command() -> None:
        raise OSError(28, "No space left on device", "page.html")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == (
        "remote_bench: [Errno 28] No space left on device: 'page.html'\n"
    )
