"""A session on a fake Jetson: selection, self-test, trust, and falling back."""

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.engines.backend import BuildRefusedError
from fastseg_runtime.engines.tensorrt.cache import EngineCache
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.frames.session import RealtimeSegmentation

from tests.doubles.cudart_double import FakeCudart, GpuArray
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_bundle import empty_plan
from tests.doubles.tiny_onnx import (
    CLASSES,
    HEIGHT,
    WIDTH,
    expected_classes,
    random_image,
    tiny_onnx,
)

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
MODULE = "fastseg_runtime.engines.tensorrt.backend_tensorrt"


@pytest.fixture(params=RELEASES)
def jetson(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """Make this machine a Jetson with one TensorRT release."""
    cudart = FakeCudart()
    trt = make_tensorrt(request.param, cudart)
    trt.cudart = cudart
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    backend = importlib.import_module(MODULE)
    for module in (backend, importlib.import_module("fastseg_runtime.engines.selection")):
        monkeypatch.setattr(module, "open_cuda", lambda: Cuda(cudart))
    yield trt
    sys.modules.pop(MODULE, None)
    assert cudart.crashes == []


def write_bundle(path: Path, jetson_seed: int = 0) -> Path:
    """Write a bundle for a Jetson and a CPU; its self-test is what seed 0 computes."""
    image = random_image()
    plan = empty_plan(WIDTH, HEIGHT, [ClassInfo(f"c{i}", (i, i, i)) for i in range(CLASSES)])
    plan = plan.with_artifact(
        "jetson-int8",
        tiny_onnx("int8", jetson_seed),
        precision="int8",
        requires={"backend": "tensorrt", "min_version": "8.5"},
    )
    plan = plan.with_artifact("cpu-fp32", tiny_onnx("fp32"))
    return plan.with_scene(image[0], expected_classes(tiny_onnx("int8"), image)[0]).write(path)


def test_the_engine_is_built_tested_and_trusted_from_then_on(jetson: Any, tmp_path: Path) -> None:
    bundle, frame = write_bundle(tmp_path / "b.fastseg"), random_image(1)
    for session_number in range(2):
        with RealtimeSegmentation(bundle) as segmentation:
            assert segmentation.info.backend == "tensorrt"
            tested = segmentation.info.selftest_agreement
            assert tested == (1.0 if session_number == 0 else None)
            classes = segmentation.infer(frame[0])
        assert (classes == expected_classes(tiny_onnx("int8"), frame)[0]).all()
    assert jetson.world.builds == 1
    assert [entry.trusted for entry in EngineCache().entries()] == [True]


def test_an_engine_that_computes_something_else_is_dropped_for_the_next_artifact(
    jetson: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_bundle(tmp_path / "b.fastseg", jetson_seed=7)
    with (
        caplog.at_level(logging.WARNING, "fastseg_runtime"),
        RealtimeSegmentation(bundle) as segmentation,
    ):
        assert segmentation.info.target == "cpu-fp32"
        assert [item.target for item in segmentation.info.rejected] == ["jetson-int8"]
    assert "self-test" in caplog.text
    assert EngineCache().entries() == []


def test_build_never_refuses_and_does_not_fall_back_silently(jetson: Any, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.fastseg")
    with pytest.raises(BuildRefusedError, match="--prepare"):
        RealtimeSegmentation(bundle, build="never")
    RealtimeSegmentation(bundle).close()
    RealtimeSegmentation(bundle, build="never").close()


def test_a_frame_on_the_gpu_gives_a_class_map_there(jetson: Any, tmp_path: Path) -> None:
    image = random_image(2)
    frame = GpuArray(Cuda(jetson.cudart), image.shape[1:], np.uint8)
    out = GpuArray(Cuda(jetson.cudart), (HEIGHT, WIDTH), np.uint8)
    view(jetson, frame)[...] = image[0]
    with RealtimeSegmentation(write_bundle(tmp_path / "b.fastseg")) as segmentation:
        assert segmentation.infer(frame, out) is out
        host = segmentation.infer(frame)
    expected = expected_classes(tiny_onnx("int8"), image)[0]
    assert (view(jetson, out) == expected).all()
    assert (host == expected).all()


def view(jetson: Any, array: GpuArray) -> Any:
    memory = jetson.cudart.view(array.address, array.nbytes)
    return np.frombuffer(memory, np.uint8).reshape(array.shape)
