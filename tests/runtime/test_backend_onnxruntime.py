from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.backend import ModelSource
from fastseg_runtime.backend_onnxruntime import OnnxRuntimeBackend
from fastseg_runtime.manifest import Artifact, InputSpec, OutputSpec

from tests.doubles.tiny_bundle import (
    HEIGHT,
    WIDTH,
    argmax_onnx,
    empty_plan,
    entry_of,
    noise,
    strongest_channel,
)


def source(content: bytes, device: str = "auto") -> ModelSource:
    artifact = Artifact("t", "onnx", "fp32", "model.onnx", (entry_of("model.onnx", content),))
    return ModelSource(
        artifact=artifact,
        input=InputSpec(WIDTH, HEIGHT),
        output=OutputSpec(),
        num_classes=3,
        read=lambda member: content,
        locate=lambda: Path("model.onnx"),
        device=device,
    )


def test_the_output_buffer_is_used_again() -> None:
    backend = OnnxRuntimeBackend()
    backend.open(source(argmax_onnx()))
    first, second = noise(seed=1), noise(seed=2)
    result = backend.infer(first[None])
    assert np.array_equal(result[0], strongest_channel(first))
    assert backend.infer(second[None]) is result
    assert np.array_equal(result[0], strongest_channel(second))


def test_a_buffer_that_changed_in_place_is_read_again() -> None:
    backend = OnnxRuntimeBackend()
    backend.open(source(argmax_onnx()))
    image = noise(seed=1)[None].copy()
    backend.infer(image)
    image[:] = noise(seed=2)
    assert np.array_equal(backend.infer(image)[0], strongest_channel(noise(seed=2)))


def test_a_closed_backend_says_so_and_may_be_closed_again() -> None:
    backend = OnnxRuntimeBackend()
    backend.open(source(argmax_onnx()))
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="closed"):
        backend.infer(noise()[None])


@pytest.mark.parametrize("device", ["npu", "cuda:one"])
def test_an_unknown_device_lists_the_known_ones(device: str) -> None:
    with pytest.raises(ValueError, match=r"no device .*choose one of \['auto', 'cpu', 'cuda'"):
        OnnxRuntimeBackend().open(source(argmax_onnx(), device))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime has CUDA",
)
def test_cuda_without_its_provider_says_what_to_install() -> None:
    with pytest.raises(ValueError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeBackend().open(source(argmax_onnx(), "cuda:1"))


def test_a_graph_of_another_size_than_promised_is_refused(tmp_path: Path) -> None:
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx(width=64))
    with pytest.raises(NoBackendError, match=r"expected an ONNX graph .* \[1, 32, 48, 3\], got"):
        RealtimeSegmentation(plan.write(tmp_path / "size.fastseg"))
