import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from compare_models.cli import main
from compare_models.report import pareto_front

from tests.doubles.own_onnx import HEIGHT, WIDTH, own_onnx

MAIN = ["--output-name", "0"]  # before the auxiliary one
ARGUMENTS = ["--size", "64x32", "--classes", "3", "--threads", "1", "--rounds", "3"]


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs compare_models; returns its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["compare_models", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_the_report_is_one_page_with_its_pictures_inside(
    cli: Cli, rival: str, tmp_path: Path
) -> None:
    out = tmp_path / "comparison"
    code, stdout, _ = cli(rival, "nano", *MAIN, *ARGUMENTS, "--json", "-o", str(out))
    assert code == 0
    document = json.loads(stdout)
    assert [row["name"] for row in document["rows"]] == ["tiny", "nano"]
    assert document == json.loads((out / "results.json").read_text())
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "<script" not in page and "nano" in page
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*.part"))


def test_a_table_is_printed_without_json(cli: Cli) -> None:
    code, out, _ = cli("nano", *ARGUMENTS)
    assert code == 0
    assert "64x32, 3 classes" in out and "Size and memory" in out


def test_data_without_minutes_is_wrong_usage(cli: Cli) -> None:
    code, out, err = cli("nano", *ARGUMENTS, "--data", "synthetic")
    assert (code, out) == (2, "")
    assert err == "compare_models: --data needs --score, --minutes or --train-speed\n"


def test_minutes_without_data_are_wrong_usage(cli: Cli) -> None:
    code, out, err = cli("nano", *ARGUMENTS, "--minutes", "20")
    assert (code, out) == (2, "") and "--minutes needs --data" in err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compare_models.cli.carry_out", pytest.fail)
    (tmp_path / "notes").write_text("a file")
    code, _, err = cli("nano", *ARGUMENTS, "-o", str(tmp_path / "notes"))
    assert code == 1 and "no folder can be there, a file is" in err


def test_scores_need_data(cli: Cli) -> None:
    code, _, err = cli("nano-synthetic", "--score")
    assert code == 2
    assert "--score needs --data KIND:PATH" in err


def test_options_that_scoring_would_ignore_are_refused(cli: Cli) -> None:
    scoring = ["nano-camvid", "--score", "--data", "synthetic"]
    code, _, err = cli(*scoring, "--normalization", "imagenet", "--size", "640x480")
    assert code == 2
    assert "--score does not take --size, --normalization" in err and ".toml" in err


def test_a_network_that_ships_is_not_trained_again_beside_others(cli: Cli) -> None:
    training = ["--data", "synthetic:size=64x32,train=8,val=2,test=2", "--minutes", "0.0001"]
    arguments = ["nano-synthetic", "--classes", "11", *ARGUMENTS[:2], *ARGUMENTS[4:]]
    code, out, err = cli(*arguments, *training, "--json")
    assert (code, json.loads(out)["accuracy"]) == (0, [])
    assert "nano-synthetic is trained already, or a file: not trained" in err


ONE_SIZE = """
import torch

class OneSize(torch.nn.Conv2d):
    def forward(self, x):
        assert x.shape[-2:] == (32, 64), "made for 64x32"
        return super().forward(x)

def net(num_classes):
    return OneSize(3, num_classes, 1)
"""


def test_what_was_measured_is_kept_where_later_parts_fail(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_size.py").write_text(ONE_SIZE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    later = ["--scale", "--torch", "toaster"]
    code, out, err = cli("one_size:net", *ARGUMENTS, *later, "--json", "-o", "comparison")
    document = json.loads(out)
    assert code == 1
    assert [row["name"] for row in document["rows"]] == ["net"]
    assert set(document["failed"]) == {"torch", "sizes", "batches"}
    assert "made for 64x32" in document["failed"]["sizes"] and "made for 64x32" in err
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "Left out, since it failed" in page and "toaster" in page


@pytest.mark.parametrize("later", [["--minutes", "1"], ["--train-speed"]])
def test_data_that_are_not_there_are_told_before_anything_is_measured(
    later: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compare_models.run.compare", pytest.fail)
    code, out, err = cli("nano", *ARGUMENTS, "--data", "folder:/nowhere", *later)
    assert (code, out) == (1, "") and "/nowhere" in err


@pytest.mark.slow
def test_what_an_onnx_file_alone_has_nothing_for_is_said(cli: Cli, tmp_path: Path) -> None:
    onnx.save(own_onnx(), tmp_path / "theirs.onnx")
    size = f"{WIDTH}x{HEIGHT}"
    command = [str(tmp_path / "theirs.onnx"), "--size", size, "--classes", "4", "--rounds", "3"]
    code, _, told = cli(*command, "--torch", "cpu", "--scale", "--export-cost")
    assert code == 0
    for option in ("--torch is for torch modules", "--scale is for", "--export-cost is for nano"):
        assert option in told


def test_every_network_is_trained_and_scored_alike(cli: Cli, rival: str) -> None:
    training = ["--data", "synthetic:size=96x64,train=8,val=2,test=2", "--minutes", "0.03"]
    arguments = [rival, "nano", *MAIN, "--classes", "11", *ARGUMENTS[:2], *ARGUMENTS[4:]]
    scores = json.loads(cli(*arguments, *training, "--json")[1])["accuracy"]
    assert [score["name"] for score in scores] == ["tiny", "nano"]
    assert all(0 <= score["miou"] <= 1 and score["split"] == "test" for score in scores)


def test_the_front_keeps_what_no_other_beats_in_both() -> None:
    points = [(1.0, 70.0), (2.0, 60.0), (1.5, 55.0), (0.5, 75.0)]
    assert pareto_front(points, larger_is_better=True) == [(2.0, 60.0), (1.0, 70.0), (0.5, 75.0)]
    assert pareto_front(points, larger_is_better=False) == [(2.0, 60.0), (1.5, 55.0)]
