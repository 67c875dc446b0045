import pytest

from fastseg.progress import StderrProgress, show_progress

NAME = "scoring nets:[/lite] and [base]"


def test_brackets_in_a_name_are_no_markup_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal then
    monkeypatch.setenv("COLUMNS", "120")
    assert list(show_progress([3, 4], NAME, 2)) == [3, 4]
    with StderrProgress() as progress:
        progress.tell(NAME)
    out, err = capsys.readouterr()
    assert out == "" and err.count(NAME) >= 2


def test_a_log_file_gets_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(show_progress([3, 4], NAME, 2)) == [3, 4]
    with StderrProgress() as progress:
        progress.tell(NAME)
    assert capsys.readouterr().err.strip() == NAME
