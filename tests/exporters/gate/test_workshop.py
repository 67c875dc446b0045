"""What is verified is what the device will compute, not a kinder file beside it."""

import sys
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import Conversion, Recipe
from fastseg_exporters.convert.progress import silent
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.gate.record import describe_network
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner, selftest_scenes
from fastseg_exporters.gate.workshop import Workshop, proving_backend
from fastseg_runtime.bundle.manifest import Artifact, OutputSpec
from fastseg_runtime.bundle.reader import BundleError
from fastseg_targets.target import load_target

pytestmark = pytest.mark.slow
DATA = "synthetic:size=96x64,train=2,val=2,test=1"


def test_fp16_for_tensorrt_is_proven_on_the_graph_in_fp16(
    source: NetworkSource, tmp_path: Path
) -> None:
    network = source.open()
    runner = pytorch_runner(network)
    scenes = VerificationSet(DATA, 2, runner.infer_new, len(network.info.classes))
    manifest = describe_network(network, "tiny", OutputSpec(), created="")
    selftests = selftest_scenes(network, runner)
    recipe, told = Recipe(source), list[str]()
    workshop = Workshop(
        recipe, manifest, scenes, scenes, selftests, tmp_path, 600, told.append, silent
    )
    fp16 = Conversion(recipe, load_target("jetson-fp16"), "fp16")
    converted = workshop.convert(fp16)

    assert workshop.verify(fp16, converted).agreement >= 0.97
    assert 0.5 < workshop.likeness(fp16, converted) <= 1.0

    (converted.folder / "model-typed.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="model-typed.onnx is damaged"):
        workshop.verify(fp16, converted)


@pytest.mark.parametrize(
    ("platform", "format_", "backend"),
    [("darwin", "coreml", "auto"), ("linux", "coreml", "mil"), ("linux", "onnx", "auto")],
)
def test_core_ml_itself_proves_its_packages_on_macos_and_nowhere_else(
    platform: str, format_: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert proving_backend(Artifact("ios", format_, "fp16", "model", ())) == backend
