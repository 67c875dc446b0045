"""What is verified is what the device will compute, not a kinder file beside it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from fastseg_exporters.convert.exporter import Conversion, Recipe
from fastseg_exporters.convert.progress import silent
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate import workshop
from fastseg_exporters.gate.record import GrowingBundle
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.workshop import Workshop, proving_backend
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.bundle.reader import BundleError
from fastseg_targets.target import load_target

DATA = "synthetic:size=96x64,train=2,val=2,test=1"


@pytest.mark.slow
def test_fp16_for_tensorrt_is_proven_on_the_graph_in_fp16(
    source: NetworkSource, tmp_path: Path
) -> None:
    network = source.open()
    runner = pytorch_runner(network)
    scenes = VerificationSet(DATA, 2, runner.infer_new, len(network.info.classes))
    recipe, told = Recipe(source), list[str]()
    bundle = GrowingBundle(tmp_path / "tiny.fastseg", network, recipe, runner, replace=False)
    place = Workshop(recipe, bundle, scenes, scenes, tmp_path, 600, told.append, silent)
    fp16 = Conversion(recipe, load_target("jetson-fp16"), "fp16")
    converted = place.convert(fp16)

    assert place.verify(fp16, converted).agreement >= 0.97
    assert 0.5 < place.likeness(fp16, converted) <= 1.0

    (converted.folder / "model-typed.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="model-typed.onnx is damaged"):
        place.verify(fp16, converted)


@pytest.mark.parametrize(("images", "taken"), [(7, 7), (8, 8), (9, 8), (64, 8)])
def test_layers_are_ranked_on_eight_images_at_most_each_alone_in_float(
    images: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Conversion] = []
    monkeypatch.setattr(workshop, "convert", lambda conversions, *_: asked.extend(conversions))
    recipe = Recipe(NetworkSource("net"), Calibration(count=images))
    place: Any = Workshop(recipe, *[None] * 6, progress=silent)
    place.convert_each(Conversion(recipe, load_target("cpu-int8"), "int8"), ("a", "b"))
    assert [conversion.keep_float for conversion in asked] == [("a",), ("b",)]
    assert {conversion.recipe.calibration.count for conversion in asked} == {taken}


@pytest.mark.parametrize(
    ("platform", "format_", "backend"),
    [("darwin", "coreml", "auto"), ("linux", "coreml", "mil"), ("linux", "onnx", "auto")],
)
def test_core_ml_itself_proves_its_packages_on_macos_and_nowhere_else(
    platform: str, format_: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert proving_backend(Artifact("ios", format_, "fp16", "model", ())) == backend
