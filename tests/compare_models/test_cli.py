import json
from pathlib import Path

import pytest
from compare_models.cli import app
from compare_models.report import pareto_front
from typer.testing import CliRunner

MAIN = ["--output-name", "0"]  # before the auxiliary one
ARGUMENTS = ["--size", "64x32", "--classes", "3", "--threads", "1", "--rounds", "3"]


def test_the_report_is_one_page_with_its_pictures_inside(rival: str, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    result = CliRunner().invoke(
        app, [rival, "nano", *MAIN, *ARGUMENTS, "--json", "-o", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [row["name"] for row in document["rows"]] == ["tiny", "nano"]
    assert document == json.loads((out / "results.json").read_text())
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "<script" not in page and "nano" in page
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*.part"))


def test_a_table_is_printed_without_json() -> None:
    result = CliRunner().invoke(app, ["nano", *ARGUMENTS], catch_exceptions=False)
    assert result.exit_code == 0
    assert "64x32, 3 classes" in result.stdout and "Size and memory" in result.stdout


def test_data_without_minutes_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["nano", *ARGUMENTS, "--data", "synthetic"])
    assert result.exit_code == 2
    assert "--minutes" in result.stderr


@pytest.mark.slow
def test_every_network_is_trained_and_scored_alike(rival: str) -> None:
    training = ["--data", "synthetic:size=96x64,train=8,val=2,test=2", "--minutes", "0.03"]
    arguments = [rival, "nano", *MAIN, "--classes", "11", *ARGUMENTS[:2], *ARGUMENTS[4:]]
    result = CliRunner().invoke(app, [*arguments, *training, "--json"], catch_exceptions=False)
    scores = json.loads(result.stdout)["accuracy"]
    assert [score["name"] for score in scores] == ["tiny", "nano"]
    assert all(0 <= score["miou"] <= 1 and score["split"] == "test" for score in scores)


def test_the_front_keeps_what_no_other_beats_in_both() -> None:
    points = [(1.0, 70.0), (2.0, 60.0), (1.5, 55.0), (0.5, 75.0)]
    assert pareto_front(points, larger_is_better=True) == [(2.0, 60.0), (1.0, 70.0), (0.5, 75.0)]
    assert pareto_front(points, larger_is_better=False) == [(2.0, 60.0), (1.5, 55.0)]
