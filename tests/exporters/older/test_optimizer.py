from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fastseg_exporters import ModelOptimizer
from fastseg_runtime import RealtimeSegmentation
from torch import nn

from fastseg import DeployGraph, FastSegNet


@pytest.fixture(scope="module")
def model() -> FastSegNet:
    torch.manual_seed(0)
    return FastSegNet(num_classes=5, variant="nano").eval()


def test_the_exported_file_alone_is_enough_for_the_runtime(
    model: FastSegNet, tmp_path: Path
) -> None:
    path = ModelOptimizer(model, size=(96, 64)).export_to_onnx(tmp_path / "model.onnx")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with torch.inference_mode():
        expected = DeployGraph(model, 96, 64)(torch.from_numpy(image)[None])[0].numpy()
    with RealtimeSegmentation(path) as session:
        assert np.mean(session.infer(image) == expected) > 0.999
        assert [c.name for c in session.classes] == [f"class_{i}" for i in range(5)]


def test_int8_weights_make_a_file_a_third_of_the_size(model: FastSegNet, tmp_path: Path) -> None:
    optimizer = ModelOptimizer(model, size=(96, 64))
    full = optimizer.export_to_onnx(tmp_path / "full.onnx").stat().st_size
    small = optimizer.quantize_dynamic().export_to_onnx(tmp_path / "small.onnx").stat().st_size
    assert small < full / 3


def test_benchmark_tells_frames_per_second_and_the_average(model: FastSegNet) -> None:
    result = ModelOptimizer(model, size=(96, 64)).benchmark(iterations=5, warmup=1)
    assert result["fps"] == pytest.approx(1e3 / result["avg_time_ms"])


def test_two_exports_are_the_same_bytes(model: FastSegNet, tmp_path: Path) -> None:
    first, second = (
        ModelOptimizer(model, size=(96, 64)).export_to_onnx(tmp_path / name).read_bytes()
        for name in ("a.onnx", "b.onnx")
    )
    assert first == second


def test_the_graph_is_one_file_of_the_opset_asked_for(model: FastSegNet, tmp_path: Path) -> None:
    path = ModelOptimizer(model, size=(96, 64)).export_to_onnx(tmp_path / "model.onnx")
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [17]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


class FrozenNorms(nn.Sequential):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]  # as people write it
        super().train(mode)


def test_a_network_whose_train_returns_nothing_is_exported(tmp_path: Path) -> None:
    model = FrozenNorms(nn.Conv2d(3, 2, 3, 4, 1))
    assert ModelOptimizer(model, size=(96, 64)).export_to_onnx(tmp_path / "model.onnx").is_file()
