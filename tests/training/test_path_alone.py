"""A path alone is recognised by fastseg-train, said, and recorded with its kind."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastseg_training.cli import main


@pytest.mark.slow
def test_a_path_alone_trains_and_its_kind_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        mask_HW = np.zeros((64, 64), np.uint8)
        mask_HW[16:48, 16:48] = 255
        for folder, pixels in (("images", rng.integers(0, 255, (64, 64, 3))), ("masks", mask_HW)):
            (tmp_path / "lesions" / folder).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "lesions" / folder / f"{number}.png"
            cv2.imwrite(str(file), pixels.astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    words = [
        "--model",
        "nano",
        "--epochs",
        "1",
        "--crop",
        "64x64",
        "--batch",
        "2",
        "--threads",
        "1",
        "--init",
        "noise",
    ]
    monkeypatch.setattr(sys, "argv", ["fastseg-train", "--data", "lesions", *words])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "lesions is recognised as folder:lesions" in capsys.readouterr().err
    assert 'data = "folder:lesions"' in (tmp_path / "runs/folder-nano/config.toml").read_text()
