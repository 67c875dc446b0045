"""Qualcomm's referee: its script without the compiler, and the compiler where it is."""

import importlib
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import REFEREES, Verdict
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.manifest import Artifact

from tests.exporters.gate.referees.small_graphs import CAST, DEQUANTIZE, frame, graph

REFEREE = REFEREES["qualcomm-htp"]
CACHE = cache_folder()  # the user's own, before tests get one of theirs
INSTALLED = REFEREE.is_installed
LOGITS = Artifact("cpu-fp32", "onnx", "fp32", "artifacts/cpu-fp32/model.onnx", (), {"logits": ""})
needs_compiler = pytest.mark.skipif(not INSTALLED, reason="no Qualcomm compiler: make referees")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", types.ModuleType("onnxruntime_qnn"))
    return importlib.import_module("fastseg_exporters.gate.referees.judge_qualcomm_htp")


def heard(model: onnx.ModelProto, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Return what the compiler and its simulator say of a model and one frame."""
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    files, work = folder / "files", folder / "work"
    for made in (files, work / "frames"):
        made.mkdir(parents=True)
    onnx.save(model, files / "model.onnx")
    np.save(work / "frames" / "0.npy", frame(0))
    return judge(REFEREE, LOGITS, files, work)


def test_bytes_become_float_over_int32_and_nothing_else_changes(
    script: Any, tmp_path: Path
) -> None:
    onnx.save(graph(CAST), tmp_path / "model.onnx")
    assert script.cast_over_int32(tmp_path / "model.onnx", tmp_path / "over.onnx")
    made = onnx.load(tmp_path / "over.onnx")
    onnx.checker.check_model(made, full_check=True)
    casts = [node.attribute[0].i for node in made.graph.node if node.op_type == "Cast"]
    assert casts == [onnx.TensorProto.INT32, onnx.TensorProto.FLOAT]
    before, after = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"image": frame(0)})[0]
        for name in ("model.onnx", "over.onnx")
    )
    assert np.array_equal(before, after)


def test_a_graph_that_casts_no_bytes_stays_as_it_is(script: Any, tmp_path: Path) -> None:
    onnx.save(graph(DEQUANTIZE), tmp_path / "model.onnx")
    assert not script.cast_over_int32(tmp_path / "model.onnx", tmp_path / "same.onnx")
    assert onnx.load(tmp_path / "same.onnx") == graph(DEQUANTIZE)


def test_nodes_left_to_the_cpu_are_counted_with_qualcomms_reason(
    script: Any, tmp_path: Path
) -> None:
    nodes = [{"op_type": "Resize", "reason": "no such mode"}] * 2
    trace = {"unsupported_nodes": nodes}
    tensors = {"a": {"data_type": 0x0232}, "b": {"data_type": 0x0408}}
    convolutions = {
        name: {"type": "Conv2d", "input_names": [name], "output_names": []} for name in tensors
    }
    dumped = {"graph": {"nodes": convolutions, "tensors": tensors}}
    (tmp_path / "qnn_op_trace.json").write_text(json.dumps(trace), "utf-8")
    (tmp_path / "graph.json").write_text(json.dumps(dumped), "utf-8")
    assert script.noted(tmp_path) == {
        "left_to_the_cpu": {"Resize: no such mode": 2},
        "convolutions": {"half": 1, "8 bit": 1},
    }


def context_of(folder: Path, *beside: str) -> Path:
    """Write what a compiler would: a compiled network, and nodes that it left."""
    model = graph(DEQUANTIZE)
    names = ("EPContext", *beside)
    nodes = [onnx.helper.make_node(name, [], [str(i)]) for i, name in enumerate(names)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, folder / "SM8650.onnx")
    return folder / "SM8650.onnx"


def answers(script: Any, order: dict[str, str]) -> Any:
    said = io.StringIO()
    script.serve([json.dumps(order)], said)
    return json.loads(said.getvalue())


@pytest.mark.parametrize("soc", ["SM8650", "SC8380XP"])
def test_it_compiles_what_an_exporter_asks_for_and_says_what_it_left(
    soc: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(model: Path, asked: str, config: dict[str, str]) -> None:
        assert (model, asked) == (Path("model.onnx"), soc)  # whatever its name, the same bytes
        assert config["ep.context_embed_mode"] == "1"
        context_of(tmp_path, "Resize").rename(config["ep.context_file_path"])

    monkeypatch.setattr(script, "session", session)
    monkeypatch.setattr(script, "version", lambda: "0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").write_bytes(b"graph")
    order = {"model": str(tmp_path / "given"), "soc": soc, "made": str(tmp_path / "made.onnx")}
    assert answers(script, order) == {"version": "0", "left_to_the_cpu": {"Resize": 1}}
    assert (tmp_path / "made.onnx").is_file()


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (RuntimeError("no\nsuch graph"), "no such graph"),
        (None, "it compiles nothing of the graph"),  # as where every node is left to the CPU
    ],
)
def test_what_is_not_compiled_is_refused_on_one_line(
    raised: Exception | None,
    says: str,
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def session(*asked: Any) -> None:
        if raised:
            raise raised

    monkeypatch.setattr(script, "session", session)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").write_bytes(b"graph")
    assert answers(script, {"model": "given", "soc": "SM8650", "made": "m"}) == {"refused": says}


def test_a_compiled_network_is_judged_as_it_is(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "version", lambda: "0")
    model = context_of(tmp_path, "Resize", "Resize")
    request = {"folder": str(tmp_path), "entry": model.name, "frames": None}
    said = script.judged(request, tmp_path)
    assert said["accepted"] and said["facts"] == {"left_to_the_cpu": {"Resize": 2}}
    assert said["says"] == "a compiled network, 2 nodes left to the CPU"


def test_ids_are_compared_whatever_confidence_comes_with_them(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph(CAST)
    model.graph.node.append(onnx.helper.make_node("Abs", ["logits"], ["confidence"]))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("confidence", onnx.TensorProto.FLOAT, None)
    )
    onnx.save(model, tmp_path / "model.onnx")
    opened = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    monkeypatch.setattr(script, "session", lambda *asked, **options: opened)
    np.save(tmp_path / "0.npy", frame(0))
    file, out = tmp_path / "model.onnx", tmp_path / "out"
    out.mkdir()
    assert script.simulate(file, file, [tmp_path / "0.npy"], out, tmp_path) == [1.0]
    assert np.load(out / "0.npy").shape == (1, 4, 8, 12)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("preparation", [CAST, DEQUANTIZE])
def test_the_simulator_gives_onnx_runtimes_ids_whichever_way_bytes_become_float(
    preparation: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = heard(graph(preparation), tmp_path, monkeypatch)
    assert verdict.outcome == "accepted", verdict.says
    assert set(verdict.facts["compiled"]) == set(script.SOCS)
    assert verdict.facts["cast_over_int32"] == (preparation == CAST)
    assert np.load(tmp_path / "work/outputs/0.npy").shape == (1, 4, 8, 12)


@pytest.mark.slow
@needs_compiler
def test_a_network_that_cannot_be_read_is_refused_or_failed_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph(CAST)
    model.graph.node[-1].op_type = "Convulsion"
    verdict = heard(model, tmp_path, monkeypatch)
    assert verdict.outcome == "refused" and "Convulsion" in verdict.says


def test_it_judges_graphs_of_fixed_shapes_alone() -> None:
    tensorrt = {"requires": {"backend": "tensorrt"}, "io": {"classes": "uint8"}}
    compiled = {"format": "qnn", "io": {"classes": "uint8"}, "extra": {"soc": "SM8650"}}
    assert REFEREE.judges(LOGITS)
    assert REFEREE.judges(Artifact(**{**vars(LOGITS), **compiled}))
    assert REFEREE.judges(Artifact(**{**vars(LOGITS), **tensorrt}))
    for other in ({"io": {"classes": "uint8"}}, {"format": "tflite"}):
        assert not REFEREE.judges(Artifact(**{**vars(LOGITS), **other}))
