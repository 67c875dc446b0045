"""The curve over few pictures: trained on so many, scored on the whole test split, resumable."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

RUNNER = Path(__file__).parents[2] / "tools" / "ablations" / "few_pictures.py"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A set laid out as CamVid is: 12, 2 and 3 pictures."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 2), ("test", 3)):
        for part, shape in (("images", (64, 96, 3)), ("labels", (64, 96))):
            (tmp_path / split / part).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 11, shape).astype(np.uint8)
                cv2.imwrite(str(tmp_path / split / part / f"{i}.png"), pixels)
    return f"camvid:{tmp_path}"


@pytest.mark.slow
def test_the_curve_counts_its_pictures_and_does_nothing_twice(data: str, tmp_path: Path) -> None:
    out = tmp_path / "few"
    command = [sys.executable, str(RUNNER), "--data", data, "--out", str(out), "--model", "nano"]
    command += ["--steps", "2", "--pictures", "9", "--ways", "noise", "--crop", "64x64"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "| nano from | 9 pictures |" in first.stdout
    rows = json.loads((out / "few_pictures.json").read_text("utf-8"))
    assert [(row["way"], row["pictures"], row["images"]) for row in rows] == [("noise", 9, 3)]
    assert len(list((out / "pictures-9" / "train" / "images").iterdir())) == 9
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.stdout == first.stdout and "step" not in again.stderr
    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, timeout=300)
    assert other.returncode == 1 and "was begun with seed 0, not 1" in other.stderr
