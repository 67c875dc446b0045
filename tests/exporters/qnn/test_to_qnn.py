"""Networks for Qualcomm's NPU: the graph that is compiled, and the compiler where it is."""

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import (
    CAVEAT,
    FOR_GATE,
    Conversion,
    Recipe,
    Request,
    find_exporter,
    load_exporter,
)
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.record import members
from fastseg_exporters.gate.referees.referee import REFEREES, verdicts_of
from fastseg_exporters.onnx import to_onnx_int8
from fastseg_exporters.qnn import to_qnn
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_targets.target import load_target, parse_target

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from fastseg.data.camvid import CLASSES

ROOT = Path(__file__).parents[3]
CACHE = cache_folder()  # the user's own, before tests get one of theirs
REFEREE = REFEREES["qualcomm-htp"]
INSTALLED, COMPILER_PYTHON = REFEREE.is_installed, REFEREE.python
needs_compiler = pytest.mark.skipif(not INSTALLED, reason="no Qualcomm compiler: make referees")
# The runtime itself opens the bundle in the simulator, and holds the network to the self-test.
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from fastseg_runtime import RealtimeSegmentation
with RealtimeSegmentation(sys.argv[2]) as session:
    print(session.info.backend, session.info.version, session.info.selftest_agreement >= 0.8)
"""


def request(source: NetworkSource, precision: str, **recipe: object) -> Request:
    whole = dataclasses.replace(Recipe(source, Calibration(count=2)), **recipe)  # type: ignore[arg-type]
    return Request(source.open(), Conversion(whole, load_target("snapdragon-int8"), precision))


class CompilerDouble:
    """Writes a file and says nothing of what is in it."""

    def __init__(self, referee: object, own_group: bool) -> None:
        """Nothing to start."""

    def ask(self, made: str, **order: str) -> dict[str, object]:
        """Compile."""
        Path(made).write_bytes(b"compiled for " + order["soc"].encode())
        return {"version": "2.7.0", "left_to_the_cpu": {}}

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Converted]:
    """Return an export in int8 that nothing was compiled in."""
    asked = request(NetworkSource(str(checkpoint)), "int8")
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_qnn, "Toolchain", CompilerDouble)
        return asked, Converted(to_qnn.export(asked, folder), folder, 0.0, 0.0)


def test_without_the_compiler_one_line_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "empty"))
    assert not find_exporter("qnn").is_installed
    with pytest.raises(ImportError) as error:
        load_exporter("qnn")
    assert "is not installed here: make referees REFEREES=qualcomm-htp" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("soc", ["SM9999", "sm8650", "57", "x" * 200])
def test_a_soc_that_is_not_known_is_answered_with_those_that_are(
    soc: str, source: NetworkSource, tmp_path: Path
) -> None:
    table = f'description = "x"\nexporter = "qnn"\nladder = ["int8"]\noptions.soc = "{soc}"\n'
    conversion = Conversion(Recipe(source), parse_target("mine", table), "int8")
    with pytest.raises(ValueError, match=r"mine: options.*soc is .*choose one of SM8550, SM8650"):
        to_qnn.export(Request(source.open(), conversion), tmp_path)


def test_the_bundle_gets_what_was_compiled_and_the_gate_its_source(
    made: tuple[Request, Converted],
) -> None:
    asked, converted = made
    names = members(asked.conversion.target, converted)
    assert {name: path.read_bytes() for name, path in names.items()} == {
        "artifacts/snapdragon-int8/model.onnx": b"compiled for SM8650"
    }
    artifact = converted.artifact
    assert artifact.io == {"image": "uint8 NHWC", "classes": "uint8"}
    assert artifact.extra[CAVEAT] == "compiled, not run on a phone (SM8650)"
    assert artifact.extra["soc"] == "SM8650" and artifact.layers


def test_the_graph_that_is_compiled_has_no_shape_that_depends_on_the_picture(
    made: tuple[Request, Converted],
) -> None:
    model = onnx.load(made[1].folder / FOR_GATE / "model.onnx")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for value in (*inferred.value_info, *inferred.output):
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim), value.name
    assert [node.op_type for node in model.graph.node if node.op_type == "Cast"] == ["Cast"]
    kinds = {node.op_type for node in model.graph.node if "image" in node.input}
    assert kinds == {"Transpose"}  # HTP casts bytes as if they were booleans


def test_a_convolution_that_gives_float_has_plain_weights_and_the_same_answer(
    source: NetworkSource,
) -> None:
    asked = request(source, "int8")
    graph = asked.graph()
    quantized = to_onnx_int8.quantize(
        to_qnn.static_graph(graph), asked.images(), graph.mean, graph.std
    )
    plain = to_qnn.with_plain_weights(quantized)
    before, after = (kinds_of(model) for model in (quantized, plain))
    assert before["DequantizeLinear"] - after["DequantizeLinear"] in (1, 2)  # the last one's
    assert {k: n for k, n in before.items() if k != "DequantizeLinear"} == {
        k: n for k, n in after.items() if k != "DequantizeLinear"
    }
    image = np.random.default_rng(0).normal(size=(1, 3, graph.height, graph.width))
    given = {"normalised_image": image.astype(np.float32)}
    ids, expected = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]
        for model in (plain, quantized)
    )
    assert np.mean(ids == expected) > 0.999


def kinds_of(model: onnx.ModelProto) -> dict[str, int]:
    names = [node.op_type for node in model.graph.node]
    return {name: names.count(name) for name in names}


@pytest.mark.slow
@needs_compiler
@pytest.mark.usefixtures("converted_here")
def test_a_network_of_odd_size_is_compiled_judged_and_opened_by_the_runtime_in_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    path, bundle = tmp_path / "odd.safetensors", tmp_path / "odd.fastseg"
    network = FastSegNet(len(CLASSES), "nano", auxiliary=False)
    save_checkpoint(path, network, CheckpointInfo("nano", CLASSES, 101, 75))
    target = dataclasses.replace(load_target("snapdragon-int8"), ladder=("fp16",))
    recipe = Recipe(NetworkSource(str(path)), Calibration(count=2))
    outcome = export_bundle(Plan(recipe, (target,), bundle, verify_images=2))
    assert not outcome.failed
    (made,) = outcome.manifest.artifacts
    assert made.verification is not None
    assert made.verification["runner"].startswith("qnn-source")
    assert made.extra["left_to_the_cpu"] == {}
    (verdict,) = verdicts_of(made)
    assert (verdict.referee, verdict.outcome) == ("qualcomm-htp", "accepted")
    assert verdict.facts["verification"]["agreement"] >= 0.97
    with pytest.raises(NoBackendError, match="onnxruntime_qnn is not installed"):
        RealtimeSegmentation(bundle)
    with pytest.raises(NoBackendError, match="the graph that it was compiled from is not in"):
        RealtimeSegmentation(bundle, "qnn-source")
    command = [COMPILER_PYTHON, "-I", "-c", RUN, ROOT / "runtime", bundle]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "qnn 2.7.0 True" in done.stdout, done.stderr
