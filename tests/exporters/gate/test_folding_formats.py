"""What others' networks have and ours have not, through each converter, against the module."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.tensorrt.to_tensorrt import tensorrt_onnx, to_half
from fastseg_runtime.arrays.metrics import Array

from fastseg import DeployGraph
from tests.doubles.folding_networks import HABITS, with_habit
from tests.doubles.operators import OPERATORS, SIZE, SideBySide, Unpooling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the converters' own imports
    pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve:UserWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up <Temporary:ResourceWarning"),
]
WIDTH, HEIGHT = 64, 48


def run_onnx(model: onnx.ModelProto, image_1HW3: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits: Array = session.run(None, {session.get_inputs()[0].name: image_1HW3})[0]
    return logits


def by_onnx(graph: DeployGraph, image_1HW3: Array, folder: Path) -> Array:
    return run_onnx(take_bytes(float_graph(graph), graph), image_1HW3)


def by_tensorrt_graph(graph: DeployGraph, image_1HW3: Array, folder: Path) -> Array:
    return run_onnx(tensorrt_onnx(graph), image_1HW3)


def by_typed_graph(graph: DeployGraph, image_1HW3: Array, folder: Path) -> Array:
    return run_onnx(to_half(tensorrt_onnx(graph)), image_1HW3)


def by_tflite(graph: DeployGraph, image_1HW3: Array, folder: Path) -> Array:
    pytest.importorskip("litert_torch", reason="needs pip install 'fastseg-edge[tflite]'")
    from ai_edge_litert.interpreter import Interpreter
    from fastseg_exporters.tflite.to_tflite import convert

    interpreter = Interpreter(model_content=convert(graph, takes_bytes=True))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image_1HW3)
    interpreter.invoke()
    logits_1hwK: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return logits_1hwK.transpose(0, 3, 1, 2)


def by_core_ml(graph: DeployGraph, image_1HW3: Array, folder: Path) -> Array:
    pytest.importorskip("coremltools", reason="needs pip install 'fastseg-edge[coreml]'")
    from fastseg_exporters.coreml import to_coreml
    from fastseg_exporters.coreml.backend_mil import read_program
    from fastseg_exporters.coreml.mil_program import Evaluator
    from fastseg_exporters.coreml.to_coreml import save, trace

    save(to_coreml.convert(trace(graph), graph), folder / "m.mlpackage")
    logits: Array = Evaluator(read_program(folder / "m.mlpackage"))(torch.from_numpy(image_1HW3))
    return np.asarray(logits)


FORMATS: dict[str, tuple[Callable[[DeployGraph, Array, Path], Array], float]] = {
    "ONNX": (by_onnx, 1e-4),
    "TensorRT's graph": (by_tensorrt_graph, 1e-4),
    "TFLite": (by_tflite, 1e-4),
    "Core ML": (by_core_ml, 1e-2),  # in fp16
}

UNREGISTERED = "an unregistered convolution"  # which torch's tracer for ONNX does not take


def test_what_the_tracer_cannot_take_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="ONNX cannot express .* requires grad") as said:
        float_graph(DeployGraph(with_habit(UNREGISTERED), WIDTH, HEIGHT).eval())
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("habit", HABITS)
def test_a_format_gives_the_modules_own_logits(habit: str, name: str, tmp_path: Path) -> None:
    if habit == UNREGISTERED and name in ("ONNX", "TensorRT's graph"):
        return
    network, (run, tolerance) = with_habit(habit), FORMATS[name]
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    x_N3HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        result = network(x_N3HW)
        expected = (result[0] if isinstance(result, tuple) else result).numpy()
    found = run(DeployGraph(network, WIDTH, HEIGHT, output="logits").eval(), image_1HW3, tmp_path)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", ["ONNX", "TensorRT's typed graph", "TFLite", "Core ML"])
def test_each_kind_of_operation_gives_in_each_format_what_it_gives_in_torch(
    name: str, tmp_path: Path
) -> None:
    run, tolerance = FORMATS.get(name, (by_typed_graph, 1e-2))  # in half
    network, (width, height) = SideBySide(OPERATORS).eval(), SIZE
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    x_13HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected_Khw = network(x_13HW).numpy()[0]
    found_Khw = run(
        DeployGraph(network, width, height, output="logits").eval(), image_1HW3, tmp_path
    )[0]
    errors = np.abs(found_Khw - expected_Khw).max((1, 2)) / np.abs(expected_Khw).max((1, 2))
    wrong = {kind: float(e) for kind, e in zip(OPERATORS, errors, strict=True) if not e < tolerance}
    assert wrong == {}


@pytest.mark.parametrize("name", FORMATS)
def test_max_unpooling_is_refused_by_name_in_each_format(name: str, tmp_path: Path) -> None:
    graph = DeployGraph(Unpooling(), *SIZE, output="logits").eval()
    image_1HW3 = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)
    with pytest.raises((ValueError, RuntimeError), match=r"max_unpool2d\S* in grow\.1 ") as said:
        FORMATS[name][0](graph, image_1HW3, tmp_path)
    assert "\n" not in str(said.value)
