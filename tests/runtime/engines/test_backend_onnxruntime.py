from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend
from onnx import TensorProto, helper, numpy_helper

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


def test_a_buffer_that_changed_in_place_is_read_again_where_binding_copies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for a GPU: the input travels there when it is bound."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: providers)
    monkeypatch.setattr(
        "fastseg_runtime.engines.backend_onnxruntime._providers", lambda _: providers[1:]
    )
    bind = onnxruntime.IOBinding.bind_cpu_input
    copies: list[Any] = []

    def bind_a_copy(binding: Any, name: str, array: Any) -> None:
        copies.append(array.copy())
        bind(binding, name, copies[-1])

    monkeypatch.setattr(onnxruntime.IOBinding, "bind_cpu_input", bind_a_copy)
    backend = OnnxRuntimeBackend()
    backend.open(source(argmax_onnx(), "cuda"))
    image = noise(seed=1)[None].copy()
    backend.infer(image)
    image[:] = noise(seed=2)
    assert np.array_equal(backend.infer(image)[0], strongest_channel(noise(seed=2)))


def test_a_graph_for_tensorrt_keeps_the_biases_of_channels_with_next_to_no_weights() -> None:
    """Which ONNX Runtime quantizes by a scale that is 0 in fp16: lite lost 64 points of mIoU."""
    content = faint_channels_onnx()
    judged = source(content)
    judged.artifact.requires["backend"] = "tensorrt"
    backend = OnnxRuntimeBackend()
    backend.open(judged)
    logits_1Khw = backend.infer(noise()[None])
    np.testing.assert_allclose(logits_1Khw[0, :, 0, 0], [0.5, 3.0], atol=0.01)


def faint_channels_onnx() -> bytes:
    """Return int8 with scales in fp16, two channels whose weights are 6e-8 and biases are not."""
    tensors = {
        "x_scale": np.float16(0.1),
        "w": np.ones((2, 3, 1, 1), np.int8),
        "w_scale": np.full(2, 6e-8, np.float16),
        "zero": np.int8(0),
        "zeros": np.zeros(2, np.int8),
        "bias": np.array([0.5, 3.0], np.float16),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_8"]),
        helper.make_node("DequantizeLinear", ["x_8", "x_scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "zeros"], ["w_q"], axis=0),
        helper.make_node("Conv", ["x_q", "w_q", "bias"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "x_scale", "zero"], ["y_8"]),
        helper.make_node("DequantizeLinear", ["y_8", "x_scale", "zero"], ["y_q"]),
        helper.make_node("Cast", ["y_q"], ["logits"], to=TensorProto.FLOAT),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, HEIGHT, WIDTH])
    initializers = [numpy_helper.from_array(np.array(a), name) for name, a in tensors.items()]
    graph = helper.make_graph(nodes, "faint", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


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


BYTES, FLOAT, HALF = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16
FRAME = (BYTES, [1, 32, 48, 3])


def passing_on(inputs: list[Any], outputs: list[Any]) -> bytes:
    """A graph with inputs and outputs of these (type, shape); it casts the first input to each."""
    nodes = [
        helper.make_node("Cast", ["i0"], [f"o{index}"], to=kind)
        for index, (kind, _) in enumerate(outputs)
    ]
    ports = [
        [helper.make_tensor_value_info(f"{letter}{index}", *port) for index, port in enumerate(all)]
        for letter, all in (("i", inputs), ("o", outputs))
    ]
    graph = helper.make_graph(nodes, "g", *ports)
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        ([(HALF, [1, 3, 32, 48])], [FRAME], r"as tensor\(float\) .*export it with keep_io_types"),
        ([FRAME, FRAME], [FRAME], "i0 .* i1 .*; expected one picture"),
        ([FRAME], [FRAME, FRAME], r"o0: uint8 .*; expected logits \(1, K, h, w\)"),
        (
            [(FLOAT, [1, 3, 32, 48])],
            [(FLOAT, [1, 3, 32, 48])],
            "how they are normalised: --normalization imagenet",
        ),
        ([(BYTES, [1, 4, 32, 48])], [(FLOAT, [1, 4, 32, 48])], r"\(1, H, W, 3\)"),
        (
            [(BYTES, [1, "h", "w", 3])],
            [(FLOAT, [1, "h", "w", 3])],
            "of any size; say which with --size WxH",
        ),
        ([(BYTES, [1, 0, 48, 3])], [(BYTES, [1, 0, 48, 3])], "sides of 1 to 16384"),
        ([(BYTES, [1, 1 << 20, 48, 3])], [(BYTES, [1, 1 << 20, 48, 3])], "sides of 1 to 16384"),
    ],
)
def test_a_bare_graph_with_another_contract_is_refused_with_what_it_has(
    inputs: list[Any], outputs: list[Any], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(passing_on(inputs, outputs))
    with pytest.raises(ValueError, match=f"bare.onnx.*{told}"):
        RealtimeSegmentation(path)


def test_a_bare_graph_without_input_or_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    blank = helper.make_tensor("value", BYTES, [1], [0])
    constant = helper.make_node("Constant", [], ["o"], value=blank)
    output = helper.make_tensor_value_info("o", BYTES, [1])
    path.write_bytes(
        helper.make_model(
            helper.make_graph([constant], "g", [], [output]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
        ).SerializeToString()
    )
    with pytest.raises(ValueError, match="takes nothing; expected one picture"):
        RealtimeSegmentation(path)


def test_a_damaged_description_in_a_bare_graph_is_said_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(argmax_onnx(metadata={"fastseg": "{}"}))
    with pytest.raises(ValueError, match=r"bare\.onnx: .*schema None"):
        RealtimeSegmentation(path)
