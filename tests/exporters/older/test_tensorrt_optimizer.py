"""TensorRTOptimizer on fakes of every release: the file it writes, and what it refuses."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from fastseg_exporters.older.tensorrt_optimizer import TensorRTOptimizer
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

from tests.doubles.cudart_double import FakeCudart
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_onnx import expected_classes, random_image, tiny_onnx

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
MODULE = "fastseg_runtime.engines.tensorrt.backend_tensorrt"


@pytest.fixture(params=RELEASES)
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Any, FakeCudart]:
    """Put a fake TensorRT where `import tensorrt` finds it."""
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    cudart = FakeCudart()
    trt = make_tensorrt(request.param, cudart)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    backend = importlib.import_module(MODULE)
    request.addfinalizer(lambda: sys.modules.pop(MODULE, None))
    monkeypatch.setattr(backend, "open_cuda", lambda: Cuda(cudart))
    return trt, cudart


@pytest.fixture
def onnx_path(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(tiny_onnx("fp32"))
    return tmp_path / "model.onnx"


def test_an_engine_in_half_precision_is_built_whatever_the_release(
    device: tuple[Any, FakeCudart], onnx_path: Path
) -> None:
    trt, cudart = device
    engine = onnx_path.parent / "out" / "model.engine"
    record = TensorRTOptimizer(str(onnx_path)).build_engine(engine)
    assert record["audit"]["counts"] == {"fp16": 1}
    assert json.loads(Path(f"{engine}.json").read_text())["engine_sha256"]
    runner = TensorRTRunner(trt, Cuda(cudart), engine.read_bytes())
    image = random_image()
    agreement = (runner.infer(image) == expected_classes(tiny_onnx("fp16"), image)).mean()
    assert agreement == 1.0


def test_weights_beside_the_model_are_taken_by_plain_name_alone(
    device: tuple[Any, FakeCudart], onnx_path: Path
) -> None:
    model = onnx.load(onnx_path)
    onnx.save(model, onnx_path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert TensorRTOptimizer(onnx_path).build_engine(onnx_path.parent / "a.engine")["engine_sha256"]
    elsewhere = onnx_path.parent / "inner" / "model.onnx"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(onnx_path.read_bytes().replace(b"m.data", b"../m.d"))
    with pytest.raises(BundleError, match=r"names the file '\.\./m\.d'"):
        TensorRTOptimizer(elsewhere).build_engine(onnx_path.parent / "b.engine")


def test_what_one_build_measured_serves_the_next(
    device: tuple[Any, FakeCudart], onnx_path: Path
) -> None:
    for name in ("first.engine", "second.engine"):
        TensorRTOptimizer(onnx_path).build_engine(onnx_path.parent / "out" / name)
    first, second = device[0].world.timing_caches
    assert first == b"" and second != b""


def test_a_failed_build_leaves_no_file(device: tuple[Any, FakeCudart], onnx_path: Path) -> None:
    with pytest.raises(TensorRTError, match="Q/DQ"):
        TensorRTOptimizer(onnx_path).build_engine(onnx_path.parent / "e.engine", "int8")
    assert [path.name for path in onnx_path.parent.iterdir()] == ["model.onnx"]


def test_a_typed_graph_is_taken_as_it_is(
    device: tuple[Any, FakeCudart], onnx_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_path.write_bytes(tiny_onnx("fp16"))
    monkeypatch.setattr("fastseg_exporters.tensorrt.to_tensorrt.to_half", lambda graph: 1 / 0)
    TensorRTOptimizer(onnx_path).build_engine(onnx_path.parent / "e.engine")


def test_a_missing_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ONNX file .*absent"):
        TensorRTOptimizer(tmp_path / "absent.onnx")
