"""The figures of a teacher are those of its own class maps."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "ablations" / "measure_teacher.py"
DATA = "synthetic:size=96x64,train=2,val=1,test=3"


@pytest.mark.slow
def test_a_teacher_of_ours_scores_as_evaluated_and_coarser_labels_keep_less(
    tmp_path: Path,
) -> None:
    """nano-synthetic at 96x64 is bad, and equally so by both ways."""
    command = [sys.executable, str(TOOL), "--data", DATA, "--teacher", "nano-synthetic"]
    done = subprocess.run(
        [*command, "--teacher-size", "96x64"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    title, *lines = done.stdout.splitlines()
    assert title == "3 images of synthetic test"
    mious = [float(line.split()[1]) for line in lines]
    kilobytes = [int(line.split()[-2]) for line in lines]
    assert mious[0] > mious[-1] > 0
    assert kilobytes == sorted(kilobytes, reverse=True)
    assert {"Sky", "Bicyclist"} <= set(lines[0].split())
    evaluate = [sys.executable, "-m", "fastseg_training", "--evaluate", "nano-synthetic"]
    evaluated = subprocess.run(
        [*evaluate, "--data", DATA, "--size", "96x64"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    (mean,) = [line for line in evaluated.stdout.splitlines() if line.split()[:1] == ["mean"]]
    assert abs(float(mean.split()[-1]) - mious[0]) < 0.01
