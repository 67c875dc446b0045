"""Every call that users of the older modules know, as it stands, imports aside."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fastseg_exporters import ModelOptimizer
from fastseg_runtime import RealtimeSegmentation
from fastseg_training import OHEMLoss, SegmentationTrainer

from fastseg import FastSegNet

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with best_model.pth, model.pth and a short input.mp4."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights = FastSegNet(num_classes=19).state_dict()
    torch.save(weights, "best_model.pth")
    torch.save(weights, "model.pth")
    writer = cv2.VideoWriter("input.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for _ in range(3):
        writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    return tmp_path


def test_the_snippets_of_the_older_readme_run_as_they_stand(folder: Path) -> None:
    model = FastSegNet(num_classes=19)

    batch = (torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long))
    train_loader = val_loader = [batch]
    SegmentationTrainer(
        model=model,
        train_loader=train_loader,
        val_loader=val_loader,
        num_classes=19,
        learning_rate=1e-3,
        num_epochs=1,
    ).train()

    image = np.zeros((64, 96, 3), np.uint8)
    seg = RealtimeSegmentation(model_path="best_model.pth", backend="pytorch", device="cpu")
    assert seg.infer(image).shape == (64, 96)
    assert seg.infer_video("input.mp4", "output.mp4") > 0
    assert os.path.getsize("output.mp4") > 0

    model.load_state_dict(torch.load("model.pth"))
    optimizer = ModelOptimizer(model)
    optimizer.export_to_onnx("model.onnx")
    optimizer.quantize_dynamic()
    results = optimizer.benchmark(iterations=3)
    assert results["fps"] > 0 and results["avg_time_ms"] > 0

    pred, target = torch.randn(2, 19, 32, 32), torch.randint(0, 19, (2, 32, 32))
    assert OHEMLoss(thresh=0.7, min_kept=100000)(pred, target).ndim == 0
