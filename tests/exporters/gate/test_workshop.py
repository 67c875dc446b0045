"""What is verified is what the device will compute, not a kinder file beside it."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fastseg_exporters.convert.exporter import Conversion, Recipe
from fastseg_exporters.convert.progress import silent
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate import workshop
from fastseg_exporters.gate.record import GrowingBundle
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import failures
from fastseg_exporters.gate.workshop import Workshop, proving_backend
from fastseg_runtime.bundle.manifest import Artifact, ModelInfo
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.selection import Availability
from fastseg_targets.target import load_target
from onnx import TensorProto, helper, numpy_helper

DATA = "synthetic:train=2,val=2,test=1"
INT8 = load_target("cpu-int8")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_each_file_for_tensorrt_is_proven_and_the_worst_counts(
    precision: str, tmp_path: Path
) -> None:
    source = NetworkSource("nano-synthetic")  # untrained ones see one class, broken or not
    network = source.open()
    runner = pytorch_runner(network)
    scenes = VerificationSet(DATA, 2, runner.infer_new, network.info.classes)
    recipe, told = Recipe(source, Calibration(count=2)), list[str]()
    bundle = GrowingBundle(tmp_path / "tiny.fastseg", network, recipe, runner, replace=False)
    place = Workshop(recipe, bundle, scenes, scenes, tmp_path, 600, told.append, silent)
    asked = Conversion(recipe, load_target(f"jetson-{precision}"), precision)
    converted = place.convert(asked)

    sound = place.verify(asked, converted)
    assert sound.agreement >= 0.95
    assert 0.5 < place.likeness(asked, converted) <= 1.0

    names = (converted.artifact.entry, *converted.artifact.alternatives)
    assert len(names) == {"fp16": 2, "int8": 4}[precision]
    for name in (names[0], names[-1]):
        file = converted.folder / name
        intact = file.read_bytes()
        file.write_bytes(turned_logits(intact))
        broken = place.verify(asked, converted)
        assert broken.agreement < 0.7, name
        assert broken.file == name
        assert min(broken.selftest_agreements) < min(sound.selftest_agreements)
        assert failures(broken, asked.target.gate, precision)

        file.write_bytes(b"no graph")
        with pytest.raises(BundleError, match=f"{name} is damaged"):
            place.verify(asked, converted)
        file.write_bytes(intact)


def turned_logits(content: bytes) -> bytes:
    """Return a graph that opens and runs as before, but its last weights have their sign turned."""
    model = onnx.load_from_string(content)
    (head,) = (t for t in model.graph.initializer if t.name.endswith("head.1.weight"))
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    written: bytes = model.SerializeToString()
    return written


def test_what_judges_int8_with_scales_in_half_rounds_as_tensorrt_does() -> None:
    """ONNX Runtime before 1.30 cut off: sound graphs agreed in 84 to 97 % of street scenes."""
    quantize = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    tensors = [
        numpy_helper.from_array(np.float16(0.5), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [6])
    y = helper.make_tensor_value_info("y", TensorProto.INT8, [6])
    graph = helper.make_graph([quantize], "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    halves = np.array([-0.74, -0.3, -0.1, 0.2, 0.4, 0.9], np.float16)
    np.testing.assert_array_equal(session.run(None, {"x": halves})[0], [-1, -1, 0, 0, 1, 2])


def ranked(
    layers: str, images: int, free_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[Conversion]]:
    """Return what is converted at a time to rank the layers of a network of a million weights."""
    batches: list[list[Conversion]] = []
    monkeypatch.setattr(
        workshop, "convert", lambda conversions, *_: batches.append(conversions) or conversions
    )
    usage = SimpleNamespace(free=free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    recipe = Recipe(NetworkSource("net"), Calibration(count=images))
    model = ModelInfo("nano", 1_000_000, 1, "0" * 64)
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(model=model))
    place: Any = Workshop(recipe, bundle, *list[Any]([None] * 5), progress=silent)
    assert len(list(place.convert_each(Conversion(recipe, INT8, "int8"), layers))) == len(layers)
    return batches


@pytest.mark.parametrize(("images", "taken"), [(7, 7), (8, 8), (9, 8), (64, 8)])
def test_layers_are_ranked_on_eight_images_at_most_each_alone_in_float(
    images: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = ranked("ab", images, 1 << 40, monkeypatch)
    assert [conversion.keep_float for conversion in asked] == [("a",), ("b",)]
    assert {conversion.recipe.calibration.count for conversion in asked} == {taken}


@pytest.mark.parametrize(("free_mb", "sizes"), [(1e6, [5]), (70, [2, 2, 1]), (0, [1] * 5)])
def test_no_more_artifacts_are_on_the_disk_at_a_time_than_half_of_it_takes(
    free_mb: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = ranked("abcde", 8, int(free_mb * 1e6), monkeypatch)
    assert [len(batch) for batch in batches] == sizes
    assert [conversion.keep_float for batch in batches for conversion in batch] == [
        (x,) for x in "abcde"
    ]


@pytest.mark.parametrize(
    ("platform", "format_", "backend"),
    [("darwin", "coreml", "coreml"), ("linux", "coreml", "mil"), ("linux", "onnx", "onnxruntime")],
)
def test_core_ml_itself_proves_its_packages_on_macos_and_nowhere_else(
    platform: str, format_: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    here = {"onnxruntime", *(["coreml"] if platform == "darwin" else [])}
    monkeypatch.setattr(workshop, "probe", lambda name: Availability(name, name in here))
    assert proving_backend(Artifact("ios", format_, "fp16", "model", ())) == backend


@pytest.mark.parametrize(
    ("engine", "usable", "backend"),
    [
        ("rknn", True, "rknn"),
        ("rknn", False, "rknn-simulator"),
        ("qnn", True, "qnn"),
        ("qnn", False, "qnn-source"),
    ],
)
def test_a_simulator_or_its_source_stands_in_for_an_engine_that_cannot_run_here(
    engine: str, usable: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "probe", lambda name: Availability(name, usable))
    artifact = Artifact("npu", engine, "int8", "model", (), requires={"backend": engine})
    assert proving_backend(artifact) == backend
