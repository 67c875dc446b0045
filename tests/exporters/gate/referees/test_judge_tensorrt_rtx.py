"""NVIDIA's own parser and builder as a referee, where `make referees` put them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import REFEREES, Verdict
from fastseg_exporters.tensorrt.to_tensorrt import tensorrt_onnx, to_half
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.manifest import Artifact
from onnx import TensorProto, helper, numpy_helper

from fastseg import DeployGraph
from tests.doubles.operators import OPERATORS, SIZE, SideBySide

REFEREE = REFEREES["tensorrt-rtx"]
CACHE = cache_folder()  # the user's own, before tests get one of theirs
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REFEREE.is_installed, reason="no referee here: make referees"),
]


@pytest.fixture(autouse=True)
def _users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))


def convolution(elem_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a network of one convolution."""
    weight_KC11 = np.ones((4, 3, 1, 1), helper.tensor_dtype_to_np_dtype(elem_type))
    x = helper.make_tensor_value_info("x", elem_type, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", elem_type, [1, 4, 8, 8])
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"])]
    graph = helper.make_graph(
        nodes, "one", [x], [y], [numpy_helper.from_array(weight_KC11, "weight")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def verdict(folder: Path, precision: str, **files: onnx.ModelProto) -> Verdict:
    """Return what is said of an artifact; "typed" stands for model-typed.onnx."""
    (folder / "files").mkdir()
    (folder / "work").mkdir()
    for name, model in files.items():
        onnx.save(model, folder / "files" / {"typed": "model-typed.onnx"}.get(name, name))
    artifact = Artifact("jetson-x", "onnx", precision, "artifacts/jetson-x/model.onnx", ())
    return judge(REFEREE, artifact, folder / "files", folder / "work")


def test_a_float_graph_is_built_for_all_that_it_knows_and_what_it_knows_not_is_said(
    tmp_path: Path,
) -> None:
    said = verdict(tmp_path, "fp32", **{"model.onnx": convolution()})
    assert said.outcome == "accepted", said.says
    assert said.says.endswith("not Orin's SM87")
    facts: dict[str, Any] = said.facts["model.onnx"]
    assert facts["kinds"]["CONVOLUTION FLOAT"] == 1
    assert all(size > 0 for size in facts["engine_bytes"].values())
    assert set(facts["engine_bytes"]) == {"SM75", "SM80", "SM86", "SM89", "SM120", "SM121"}


@pytest.mark.parametrize(
    ("elem_type", "outcome"), [(TensorProto.FLOAT, "refused"), (TensorProto.FLOAT16, "accepted")]
)
def test_a_convolution_in_float32_that_was_asked_for_in_half_is_refused(
    elem_type: int, outcome: str, tmp_path: Path
) -> None:
    files = {"model.onnx": convolution(), "typed": convolution(elem_type)}
    said = verdict(tmp_path, "fp16", **files)
    assert said.outcome == outcome
    assert ("1 CONVOLUTION" in said.says) == (outcome == "refused")


def test_a_second_typed_graph_is_held_to_the_same(tmp_path: Path) -> None:
    files = {
        "model.onnx": convolution(),
        "model-float-depthwise-typed.onnx": convolution(),
        "typed": convolution(TensorProto.FLOAT16),
    }
    said = verdict(tmp_path, "int8", **files)
    assert said.outcome == "refused"
    assert said.says.startswith("model-float-depthwise-typed.onnx has layers in float32")


def of_one(operator: str, elem_type: int, *constants: Any) -> onnx.ModelProto:
    """Return a network of one operation on (1, 4, 8, 8)."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    tensors = [
        numpy_helper.from_array(np.asarray(value, dtype if np.ndim(value) > 1 else np.int64), name)
        for value, name in zip(constants, "abc", strict=False)
    ]
    x = helper.make_tensor_value_info("x", elem_type, [1, 4, 8, 8])
    y = helper.make_tensor_value_info("y", elem_type, None)
    node = helper.make_node(operator, ["x", *(tensor.name for tensor in tensors)], ["y"])
    graph = helper.make_graph([node], "one", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_product_in_float32_that_turing_alone_lacks_is_a_note_beside_a_typed_graph(
    tmp_path: Path,
) -> None:
    product = {
        t: of_one("MatMul", t, np.ones((8, 8))) for t in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    files = {"model.onnx": product[TensorProto.FLOAT], "typed": product[TensorProto.FLOAT16]}
    said = verdict(tmp_path, "fp16", **files)
    assert said.outcome == "accepted", said.says
    assert "model.onnx is not built for SM75" in said.says


def test_a_length_whose_squares_its_parser_sums_in_float32_is_no_fault(tmp_path: Path) -> None:
    files = {
        "model.onnx": of_one("ReduceL2", TensorProto.FLOAT, [1]),
        "typed": of_one("ReduceL2", TensorProto.FLOAT16, [1]),
    }
    said = verdict(tmp_path, "fp16", **files)
    assert said.outcome == "accepted", said.says


def test_each_kind_of_operation_is_built_in_half(tmp_path: Path) -> None:
    network = SideBySide(OPERATORS).eval()
    graph = DeployGraph(network, *SIZE, output="logits").eval()
    said = verdict(tmp_path, "fp16", typed=to_half(tensorrt_onnx(graph)))
    assert said.outcome == "accepted", said.says


def test_what_its_parser_refuses_is_refused_in_its_own_words(tmp_path: Path) -> None:
    model = convolution()
    model.graph.node[0].op_type = "Convulsion"
    said = verdict(tmp_path, "fp32", **{"model.onnx": model})
    assert said.outcome == "refused"
    assert "model.onnx is not parsed" in said.says and "Convulsion" in said.says


def test_it_judges_what_is_made_for_tensorrt_alone() -> None:
    made = Artifact("t", "onnx", "fp16", "e", (), requires={"backend": "tensorrt"})
    assert REFEREE.judges(made)
    assert not REFEREE.judges(dataclasses.replace(made, requires={"backend": "onnxruntime"}))
