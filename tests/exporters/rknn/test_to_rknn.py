"""RKNN: what is refused without the toolkit, and what it makes of networks where it is."""

import dataclasses
from pathlib import Path

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
from fastseg_exporters.gate.referees.judge_rknn import CHIPS
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_exporters.gate.referees.toolchain import ToolchainError
from fastseg_exporters.rknn import backend_rknn_simulator, to_rknn
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines.backend import ModelSource
from fastseg_targets.target import load_target, parse_target, target_names

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from fastseg.data.camvid import CLASSES

CACHE = cache_folder()  # the user's own, before tests get one of theirs
INSTALLED = REFEREES["rknn"].is_installed
needs_toolkit = pytest.mark.skipif(not INSTALLED, reason="no RKNN-Toolkit2 here: make referees")
TARGETS = [name for name in target_names() if load_target(name).exporter == "rknn"]


def request(source: NetworkSource, target: str, precision: str, **recipe: object) -> Request:
    whole = dataclasses.replace(Recipe(source, Calibration(count=2)), **recipe)
    return Request(source.open(), Conversion(whole, load_target(target), precision))


@pytest.fixture
def no_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "empty"))


@pytest.mark.usefixtures("no_toolkit")
def test_without_the_toolkit_one_line_says_what_installs_it() -> None:
    exporter = find_exporter("rknn")
    assert not exporter.is_installed
    assert exporter.install.endswith("make referees REFEREES=rknn")
    with pytest.raises(ImportError) as error:
        load_exporter("rknn")
    assert "is not installed here: make referees REFEREES=rknn" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("chip", ["rk3399", "RK3588", "", "x" * 200])
def test_a_chip_that_there_is_not_is_answered_with_those_there_are(
    chip: str, source: NetworkSource, tmp_path: Path
) -> None:
    table = f'description = "x"\nexporter = "rknn"\nladder = ["fp16"]\noptions.chip = "{chip}"\n'
    conversion = Conversion(Recipe(source), parse_target("mine", table), "fp16")
    with pytest.raises(ValueError, match=r"mine: options.*chip is .*choose one of rk3588, rk3576"):
        to_rknn.export(Request(source.open(), conversion), tmp_path)


def test_a_confidence_is_the_runtimes_to_make(source: NetworkSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the runtime makes its own confidence"):
        to_rknn.export(request(source, "rockchip-fp16", "fp16", temperature=1.0), tmp_path)


def test_every_rockchip_target_names_a_chip_that_the_referee_knows() -> None:
    assert TARGETS == ["rockchip-fp16", "rockchip-int8"]
    assert {load_target(name).options["chip"] for name in TARGETS} <= set(CHIPS)


def test_what_only_the_gate_takes_is_left_out_of_the_bundle(
    source: NetworkSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_rknn, "Toolchain", ToolkitDouble)
    asked = request(source, "rockchip-int8", "int8")
    made = to_rknn.export(asked, tmp_path)
    assert {file.name for file in (tmp_path / FOR_GATE).iterdir()} == {
        "model.onnx",
        "0.npy",
        "1.npy",
    }
    names = members(asked.conversion.target, Converted(made, tmp_path, 0.0, 0.0))
    assert [*names] == ["artifacts/rockchip-int8/model.rknn"]
    assert made.io == {"image": "uint8 NHWC", "logits": "float32 NCHW"}
    assert made.extra == {CAVEAT: "simulated, not run on a board (rk3588)", "chip": "rk3588"}


class ToolkitDouble:
    """Writes a file and says nothing of what is in it."""

    def __init__(self, referee: object, own_group: bool = True) -> None:
        """Nothing to start."""

    def ask(self, made: str, **order: object) -> dict[str, str]:
        """Build."""
        Path(made).write_bytes(b"RKNN")
        return {"version": "2.5.0"}

    def close(self) -> None:
        """Nothing to end."""


def test_a_toolkit_that_refuses_the_graph_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Refusing(ToolkitDouble):
        def ask(self, made: str, **order: object) -> dict[str, str]:
            raise ToolchainError("no such op")

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(backend_rknn_simulator, "Toolchain", Refusing)
    (tmp_path / FOR_GATE).mkdir()
    made = Artifact("rockchip-fp16", "rknn", "fp16", "made.rknn", (), extra={"chip": "rk3588"})
    source = ModelSource(
        made, InputSpec(64, 32), OutputSpec(), lambda name: b"", lambda: tmp_path / made.entry
    )
    with pytest.raises(ToolchainError, match="no such op"):
        backend_rknn_simulator.SimulatorBackend().open(source)
    assert closed == [True]


@pytest.mark.slow
@needs_toolkit
@pytest.mark.usefixtures("converted_here")
def test_a_network_of_odd_size_is_built_simulated_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    path, bundle = tmp_path / "odd.safetensors", tmp_path / "odd.fastseg"
    network = FastSegNet(len(CLASSES), "nano", auxiliary=False)
    save_checkpoint(path, network, CheckpointInfo("nano", CLASSES, 101, 75))
    recipe = Recipe(NetworkSource(str(path)), Calibration(count=2))
    plan = Plan(recipe, (load_target("rockchip-fp16"),), bundle, verify_images=2)
    outcome = export_bundle(plan)
    assert not outcome.failed
    (made,) = outcome.manifest.artifacts
    assert made.verification is not None
    assert made.verification["runner"].startswith("rknn-simulator")
    assert made.verification["agreement"] >= 0.97
    with open_bundle(bundle) as whole:
        assert whole.read(made.entry).startswith(b"RKNN")
    with pytest.raises(NoBackendError, match="rknnlite is not installed"):
        RealtimeSegmentation(bundle)
    with pytest.raises(NoBackendError, match="simulator needs the graph that it was made of"):
        RealtimeSegmentation(bundle, "rknn-simulator")


@pytest.mark.slow
@needs_toolkit
@pytest.mark.parametrize("chip", CHIPS[-1:])
def test_int8_is_built_for_the_chip_that_a_target_names(
    chip: str, source: NetworkSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    asked = request(source, "rockchip-int8", "int8")
    target = dataclasses.replace(asked.conversion.target, options={"chip": chip})
    asked = dataclasses.replace(
        asked, conversion=dataclasses.replace(asked.conversion, target=target)
    )
    made = load_exporter("rknn")(asked, tmp_path)
    content = (tmp_path / made.entry).read_bytes()
    assert content.startswith(b"RKNN") and chip.encode() in content
    assert made.toolchain["rknn-toolkit2"] == "2.5.0"
