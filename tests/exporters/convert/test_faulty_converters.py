"""Converters that crash, flood and leave files, in one export with a sound one."""

import tempfile
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_targets.target import Target, load_target, parse_target

DATA = "synthetic:size=96x64,train=2,val=2,test=2"


def faulty(exporter: str) -> Target:
    """Return a target whose converter goes wrong."""
    text = f'description = "d"\nexporter = "{exporter}"\nladder = ["fp32"]\nextra = "onnx"'
    return parse_target(f"board-{exporter}", text)


@pytest.mark.slow
@pytest.mark.usefixtures("outside_packages")
def test_converters_that_go_wrong_stop_no_other_and_leave_nothing(
    source: NetworkSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, here = tmp_path / "tmp", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    targets = (*map(faulty, ("crash", "flood", "exit-quietly")), load_target("cpu-fp32"))
    plan = Plan(Recipe(source, Calibration(DATA, 2)), targets, here / "tiny.fastseg", DATA, 2)
    outcome = export_bundle(plan)
    assert set(outcome.failed) == {"board-crash", "board-flood", "board-exit-quietly"}
    with open_bundle(plan.out) as bundle:
        artifacts = bundle.manifest.artifacts
    assert [artifact.target for artifact in artifacts] == ["cpu-fp32"]
    assert [file.path for file in artifacts[0].files] == ["artifacts/cpu-fp32/model.onnx"]
    assert [path.name for path in here.iterdir()] == ["tiny.fastseg"]
    onnx_runtimes_own = {".ses"}  # of the verification in this process, one for all programs
    assert {path.name for path in temporary.iterdir()} <= onnx_runtimes_own
