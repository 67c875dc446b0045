"""The same code on a real TensorRT and a real GPU, where there is one: make test-gpu."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.engines.tensorrt.builder import build_engine
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineSource
from fastseg_runtime.engines.tensorrt.cuda import open_cuda
from fastseg_runtime.engines.tensorrt.platform import describe_platform, probe_release
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

from tests.doubles.tiny_onnx import expected_classes, random_image, tiny_onnx

pytestmark = pytest.mark.gpu


@pytest.fixture
def trt() -> Any:
    return pytest.importorskip("tensorrt")


def graph_for(trt: Any, precision: str) -> bytes:
    plain = precision == "fp16" and not probe_release(trt).strongly_typed
    return tiny_onnx("fp32" if plain else precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_gives_the_classes_that_onnx_runtime_gives(trt: Any, precision: str) -> None:
    cuda, graph = open_cuda(), graph_for(trt, precision)
    built = build_engine(trt, cuda, graph, precision)
    runner = TensorRTRunner(trt, cuda, built.plan)
    for seed in range(5):
        image = random_image(seed)
        assert (runner.infer(image) == expected_classes(graph, image)).mean() > 0.95
    runner.close()


def test_an_engine_is_built_once_and_loaded_from_the_cache(trt: Any, tmp_path: Path) -> None:
    cuda = open_cuda()
    source = EngineSource(trt, cuda, describe_platform(trt, cuda), EngineCache(tmp_path))
    graph = graph_for(trt, "fp16")
    built = source.get({"model.onnx": graph}, "fp16")
    assert source.get({"model.onnx": graph}, "fp16", build="never").plan == built.plan


@pytest.mark.parametrize("library", ["torch", "cupy", "pycuda"])
def test_frames_of_other_libraries_go_in_and_class_maps_stay(trt: Any, library: str) -> None:
    cuda, graph, image = open_cuda(), graph_for(trt, "fp32"), random_image()
    runner = TensorRTRunner(trt, cuda, build_engine(trt, cuda, graph, "fp32").plan)
    frame, out, fetch = allocate(library, image)
    assert runner.infer(frame, out) is out
    assert (fetch() == expected_classes(graph, image)).mean() > 0.95
    runner.close()


def allocate(library: str, image: Any) -> tuple[Any, Any, Any]:
    """Return the image and an empty class map on the GPU, and a function that fetches the map."""
    if library == "pycuda":
        pytest.importorskip("pycuda.autoprimaryctx")
        gpuarray = pytest.importorskip("pycuda.gpuarray")
        out = gpuarray.zeros(image.shape[:3], np.uint8)
        return gpuarray.to_gpu(image), out, out.get
    if library == "cupy":
        cupy = pytest.importorskip("cupy")
        out = cupy.zeros(image.shape[:3], cupy.uint8)
        return cupy.asarray(image), out, out.get
    torch = pytest.importorskip("torch")
    out = torch.zeros(image.shape[:3], dtype=torch.uint8, device="cuda")
    return torch.from_numpy(image).cuda(), out, lambda: out.cpu().numpy()
