"""Exports end to end, on an untrained network: real converters, real runtime, real bundle."""

import dataclasses
import errno
import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fastseg_exporters import export
from fastseg_exporters.convert.exporter import Recipe, find_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Outcome, Plan, _climb, export_bundle, options_of
from fastseg_exporters.gate import ladder, record, workshop
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import Artifact, ClassInfo, Manifest, numbered_classes
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.bundle.writer import read_members, write_bundle
from fastseg_runtime.engines.backend_onnxruntime import describe
from fastseg_targets.target import Gate, Target, load_target, parse_target
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_fault

from fastseg import load_checkpoint, save_checkpoint
from fastseg.data.camvid import CLASSES

DATA = "synthetic:size=96x64,train=4,val=4,test=2"
TARGETS = tuple(map(load_target, ("cpu-fp32", "cpu-int8", "cpu-int8-weights")))
# Another value for each field that makes an artifact; the names of those that make none.
MAKES: dict[type, dict[str, Any]] = {
    Plan: {"verify_data": "camvid:here", "verify_images": 5, "confidence": True},
    Calibration: {"data": "camvid:here", "count": 5},
    Target: {
        "exporter": "pytorch",
        "ladder": ("int8", "fp32"),
        "gate": Gate(0.01, 0.05),
        "options": {"opset": 17},
    },
}
MAKES_NONE = {
    Plan: {"targets", "out", "strict", "resume", "force", "timeout_s", "require_usage", "referees"},
    Calibration: set(),
    Target: {"name", "description", "extra", "devices"},
}
MEASURED = ("latency_ms", "seconds", "conversion_seconds", "peak_memory_mb")


def plan(source: NetworkSource, out: Path, **changes: Any) -> Plan:
    recipe = Recipe(source, Calibration(DATA, 4))
    return dataclasses.replace(Plan(recipe, TARGETS[:1], out, DATA, 4), **changes)


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest, Plan]:
    """One artifact in float: four seconds, most of them the imports of the child process."""
    made = plan(NetworkSource(str(checkpoint)), tmp_path_factory.mktemp("one") / "tiny.fastseg")
    outcome = export_bundle(made)
    assert outcome.failed == {}
    return made.out, outcome.manifest, made


@pytest.fixture(scope="module")
def with_int8(
    exported: tuple[Path, Manifest, Plan], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest, Plan]:
    """The same bundle, joined by two more artifacts."""
    path = tmp_path_factory.mktemp("all") / exported[0].name
    path.write_bytes(exported[0].read_bytes())
    all_three = dataclasses.replace(exported[2], out=path, targets=TARGETS, resume=True)
    outcome = export_bundle(all_three)
    assert (outcome.failed, outcome.skipped) == ({}, ["cpu-fp32"])
    return path, outcome.manifest, all_three


def named(manifest: Manifest, target: str) -> Artifact:
    return next(artifact for artifact in manifest.artifacts if artifact.target == target)


def assert_evidence(manifest: Manifest) -> None:
    for artifact in manifest.artifacts:
        assert artifact.verification is not None
        assert artifact.verification["images"] == 4
        assert artifact.verification["data"] == "synthetic val"
        assert artifact.verification["runner"].startswith("onnxruntime")
        assert artifact.attempts[-1]["failures"] == []
        assert set(artifact.extra["bounds_ms"]) <= set(load_target(artifact.target).devices)


def test_an_artifact_carries_its_evidence(exported: tuple[Path, Manifest, Plan]) -> None:
    assert len(exported[1].artifacts) == 1
    assert_evidence(exported[1])


def test_the_float_artifact_agrees_with_pytorch(exported: tuple[Path, Manifest, Plan]) -> None:
    verification = named(exported[1], "cpu-fp32").verification or {}
    assert verification["agreement"] >= 0.999
    assert abs(verification["miou_drop"]) < 0.001


@pytest.mark.slow
def test_artifacts_that_join_carry_their_evidence_and_run(
    with_int8: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path, manifest, _ = with_int8
    assert [artifact.target for artifact in manifest.artifacts] == [t.name for t in TARGETS]
    assert_evidence(manifest)
    for target in TARGETS:
        with RealtimeSegmentation(path, target=target.name) as session:
            assert session.infer(np.zeros((50, 70, 3), np.uint8)).shape == (50, 70)


@pytest.mark.slow
def test_int8_weights_are_a_third_of_the_float_file(with_int8: tuple[Path, Manifest, Plan]) -> None:
    full, small = (
        sum(file.bytes for file in named(with_int8[1], name).files)
        for name in ("cpu-fp32", "cpu-int8-weights")
    )
    assert small < full / 3


def reached_from(name: str, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


@pytest.mark.slow
def test_int8_reads_the_cameras_bytes_without_any_arithmetic(
    with_int8: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path, manifest, _ = with_int8
    artifact = named(manifest, "cpu-int8")
    if artifact.precision != "int8":
        pytest.fail(f"int8 did not pass: {artifact.attempts}")
    with open_bundle(path) as bundle:
        graph = onnx.load_from_string(bundle.read(artifact.entry)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (first,) = reached_from("image", graph)
    moves: list[str] = []
    while first.op_type in ("Reshape", "Transpose"):  # which move bytes and change none
        moves.append(first.op_type)
        (first,) = reached_from(first.output[0], graph)
    assert moves and first.op_type == "DequantizeLinear"
    assert [values[name].item() for name in first.input[1:]] == [1 / 64, 128]


def test_the_runtime_opens_what_was_exported(exported: tuple[Path, Manifest, Plan]) -> None:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    with RealtimeSegmentation(exported[0], target="cpu-fp32") as session:
        assert session.infer(image_HW3).shape == (50, 70)


def test_the_bare_onnx_file_of_a_bundle_knows_its_classes_and_normalisation(
    exported: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path, manifest, _ = exported
    (tmp_path / "model.onnx").write_bytes(open_bundle(path).read(named(manifest, "cpu-fp32").entry))
    with RealtimeSegmentation(tmp_path / "model.onnx") as session:
        assert session.classes == manifest.classes
        assert session.input == manifest.input
        assert session.manifest.model == manifest.model


@pytest.mark.slow
def test_int8_compares_logits_in_float(with_int8: tuple[Path, Manifest, Plan]) -> None:
    path, manifest, _ = with_int8
    model = onnx.load_from_string(open_bundle(path).read(named(manifest, "cpu-int8").entry))
    made_by = {name: node for node in model.graph.node for name in node.output}
    tail = [node for node in model.graph.node if node.name.startswith("/class_map")]
    [first, *_] = [node for node in tail if node.input]
    assert made_by[first.input[0]].op_type == "Gemm"  # which ends in float


@pytest.mark.slow
def test_resume_makes_again_what_was_made_in_another_way(
    with_int8: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path = tmp_path / with_int8[0].name
    path.write_bytes(with_int8[0].read_bytes())
    looser = dataclasses.replace(TARGETS[0], gate=Gate(0.02, 0.05))
    again = dataclasses.replace(with_int8[2], out=path, resume=True, targets=(looser, TARGETS[1]))
    assert export_bundle(again).skipped == ["cpu-int8"]


def test_resume_skips_what_is_there(
    exported: tuple[Path, Manifest, Plan],
) -> None:
    outcome = export_bundle(dataclasses.replace(exported[2], resume=True))
    assert outcome.skipped == ["cpu-fp32"]
    assert outcome.manifest.to_json() == exported[1].to_json()


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, fields in MAKES.items() for name in fields]
)
def test_resume_makes_again_what_any_field_makes_another(kind: type, name: str) -> None:
    made = plan(NetworkSource("net"), Path("net.fastseg"))
    parts: dict[type, Any] = {Plan: made, Calibration: made.recipe.calibration, Target: TARGETS[0]}
    parts[kind] = dataclasses.replace(parts[kind], **{name: MAKES[kind][name]})
    recipe = dataclasses.replace(made.recipe, calibration=parts[Calibration])
    again = dataclasses.replace(parts[Plan], recipe=recipe)
    assert options_of(again, parts[Target]) != options_of(made, TARGETS[0])


@pytest.mark.parametrize("kind", MAKES)
def test_of_each_field_it_is_said_whether_it_makes_an_artifact(kind: type) -> None:
    fields = {field.name for field in dataclasses.fields(kind)} - {"recipe"}
    assert fields == MAKES[kind].keys() | MAKES_NONE[kind]


@pytest.mark.parametrize("name", MAKES[Target])
def test_targets_that_any_field_makes_differ_do_not_share_files(name: str) -> None:
    other = dataclasses.replace(TARGETS[0], **{name: MAKES[Target][name]})
    assert _climb(other) != _climb(TARGETS[0])


@pytest.mark.usefixtures("converted_here")
def test_resume_knows_who_made_an_artifact_unless_its_bundle_is_older(
    exported: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path, manifest, made = exported
    (artifact,) = manifest.artifacts
    options = {key: value for key, value in artifact.extra["options"].items() if key != "made_by"}
    older = dataclasses.replace(artifact, extra={**artifact.extra, "options": options})
    again = dataclasses.replace(made, out=tmp_path / path.name, resume=True)
    write_bundle(
        again.out, dataclasses.replace(manifest, artifacts=(older,)), read_members(path)[1]
    )
    assert export_bundle(again).skipped == ["cpu-fp32"]
    again.out.write_bytes(path.read_bytes())
    other = (dataclasses.replace(TARGETS[0], exporter="pytorch"),)
    outcome = export_bundle(dataclasses.replace(again, targets=other))
    assert (outcome.skipped, outcome.manifest.artifacts[0].format) == ([], "pytorch")


@pytest.mark.slow
def test_two_exports_differ_in_times_alone(
    with_int8: tuple[Path, Manifest, Plan], tmp_path: Path
) -> None:
    path, manifest, made = with_int8
    again = dataclasses.replace(made, out=tmp_path / path.name, targets=TARGETS[1:2])
    first = dataclasses.replace(manifest, artifacts=(named(manifest, "cpu-int8"),))
    second = export_bundle(again).manifest
    assert without_times(dataclasses.asdict(first)) == without_times(dataclasses.asdict(second))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in (*MEASURED, "created")}
        return {key: without_times(item) for key, item in kept.items()}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
def test_a_bundle_of_another_network_is_kept_unless_forced(
    exported: tuple[Path, Manifest, Plan], source: NetworkSource, tmp_path: Path
) -> None:
    path = tmp_path / "other.fastseg"
    path.write_bytes(exported[0].read_bytes())
    other = plan(dataclasses.replace(source, size=(64, 64)), path)
    with pytest.raises(ValueError, match="holds another network, size or output"):
        export_bundle(other)
    renamed = (ClassInfo("other", (1, 2, 3)), *exported[1].classes[1:])
    with pytest.raises(ValueError, match="or other classes"):
        export_bundle(plan(dataclasses.replace(source, classes=renamed), path))
    assert path.read_bytes() == exported[0].read_bytes()
    forced = export_bundle(dataclasses.replace(other, force=True))
    assert [artifact.target for artifact in forced.manifest.artifacts] == ["cpu-fp32"]


@pytest.mark.slow
def test_the_use_that_weights_allow_is_in_every_artifact_and_stays_when_targets_join(
    checkpoint: Path, tmp_path: Path
) -> None:
    model, info = load_checkpoint(checkpoint)
    weights, path = tmp_path / "w.safetensors", tmp_path / "w.fastseg"
    training = {"init_licence": "weights of ImageNet"}
    info = dataclasses.replace(info, training=training)
    save_checkpoint(weights, model, dataclasses.replace(info, usage="research"))
    manifest = export_bundle(plan(NetworkSource(str(weights)), path)).manifest
    assert manifest.model.usage == "research"
    assert manifest.model.data_licence == info.terms() != info.data_licence
    with open_bundle(path) as bundle:
        bare = tmp_path / "bare.onnx"
        bare.write_bytes(bundle.read("artifacts/cpu-fp32/model.onnx"))
    assert describe(bare).model.usage == "research"

    _, members = read_members(path)
    unsaid = dataclasses.replace(manifest.model, usage="", data_licence=info.data_licence)
    old = dataclasses.replace(manifest, model=unsaid)
    write_bundle(path, old, members)  # as before the field
    bare_copy = (load_target("pytorch"),)  # takes no converter
    joined = export_bundle(plan(NetworkSource(str(weights)), path, targets=bare_copy)).manifest
    assert (joined.model.usage, len(joined.artifacts)) == ("research", 2)
    assert joined.model.data_licence == info.terms()

    save_checkpoint(weights, model, dataclasses.replace(info, usage="commercial"))
    again = export_bundle(plan(NetworkSource(str(weights)), path, targets=bare_copy)).manifest
    assert again.model.usage == "research"  # another header does not loosen what went before


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"output": "logits"}, {"mask_stride": 4}])
def test_other_outputs_run_too(
    source: NetworkSource, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "tiny.fastseg"
    recipe = Recipe(source, Calibration(DATA, 4), **changes)
    outcome = export_bundle(plan(source, path, recipe=recipe))
    assert outcome.failed == {}
    (artifact,) = outcome.manifest.artifacts
    # What a smaller mask costs is the network's own loss, and stands beside the artifact's.
    assert (artifact.extra["mask_cost"] is not None) == ("mask_stride" in changes)
    with RealtimeSegmentation(path) as session:
        assert session.infer(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96)


@pytest.mark.slow
def test_a_network_that_sees_one_class_is_said_to_be_hard_to_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    layer = nn.Conv2d(3, num_classes, 1)\n"
        "    nn.init.zeros_(layer.weight)\n"
        "    nn.init.zeros_(layer.bias)\n"
        "    layer.bias.data[1] = 1.0\n"
        "    return layer\n"
    )
    (tmp_path / "blind_net.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told: list[str] = []
    blind = NetworkSource("blind_net:net", numbered_classes(3), None, (96, 64))
    export_bundle(Plan(Recipe(blind), TARGETS[:1], tmp_path / "blind.fastseg"), told.append)
    assert "cpu-fp32: the network sees class_1 alone, so agreement says little" in told


@pytest.mark.slow
def test_strict_stops_with_the_numbers_and_writes_nothing(
    source: NetworkSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "mIoU drops by 0.200, limit 0.010"
    monkeypatch.setattr(ladder, "failures", lambda *given: [reason])
    impossible = dataclasses.replace(TARGETS[1], name="impossible")
    path = tmp_path / "tiny.fastseg"
    outcome = export_bundle(plan(source, path, targets=(impossible,), strict=True))
    assert outcome.failed["impossible"].splitlines()[1:] == [f"  int8: {reason}"]
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("outside_packages")
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("autocast", 0.9)])
def test_a_format_from_outside_is_exported_verified_and_run(
    precision: str, least: float, source: NetworkSource, tmp_path: Path
) -> None:
    text = f'description = "d"\nexporter = "pt2"\nladder = ["{precision}"]'
    path = tmp_path / "tiny.fastseg"
    outcome = export_bundle(plan(source, path, targets=(parse_target("my-board", text),)))
    assert outcome.failed == {}
    assert (outcome.manifest.artifacts[0].verification or {})["agreement"] >= least
    with RealtimeSegmentation(path) as session:
        assert (session.info.backend, session.info.precision) == ("pt2", precision)
        assert session.info.version == torch.__version__


@pytest.mark.slow
def test_a_network_of_ones_own_is_exported_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8),\n"
        "                         nn.ReLU(), nn.Conv2d(8, num_classes, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    network = importlib.import_module("my_networks").tiny(len(CLASSES))
    torch.save(network.state_dict(), "w.pth")
    source = NetworkSource("my_networks:tiny", CLASSES, "w.pth", (96, 64))
    outcome = export_bundle(plan(source, tmp_path / "own.fastseg", targets=TARGETS[:2]))
    assert outcome.failed == {}
    assert outcome.manifest.model.variant == "my_networks:tiny"


@pytest.mark.slow
@pytest.mark.parametrize("names", [("cpu-fp32", "intel-bf16"), ("intel-bf16", "cpu-fp32")])
def test_files_of_two_engines_are_each_ones_own_in_whatever_order(
    checkpoint: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    pytest.importorskip("openvino")
    path, asked = tmp_path / "tiny.fastseg", tuple(map(load_target, names))
    manifest = export_bundle(plan(NetworkSource(str(checkpoint)), path, targets=asked)).manifest
    engines = {artifact.target: artifact.requires["backend"] for artifact in manifest.artifacts}
    assert engines == {"cpu-fp32": "onnxruntime", "intel-bf16": "openvino"}


@pytest.mark.usefixtures("converted_here")
def test_two_exports_into_one_bundle_at_a_time_both_join_it(
    source: NetworkSource, tmp_path: Path
) -> None:
    path, both_there = tmp_path / "tiny.fastseg", threading.Event()
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if line.startswith("waiting"):
            both_there.set()
        elif line.endswith("converting"):
            both_there.wait(60)

    def run(name: str) -> Outcome:
        target = dataclasses.replace(load_target("pytorch"), name=name)
        return export_bundle(plan(source, path, targets=(target,)), tell)

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(run, ("one", "other")))
    assert [outcome.failed for outcome in outcomes] == [{}, {}]
    assert f"waiting for another export into {path}" in told
    assert {artifact.target for artifact in open_bundle(path).manifest.artifacts} == {
        "one",
        "other",
    }
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("converted_here")
def test_a_fault_of_one_target_stops_no_other(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = {
        "unknown": ValueError("an operation that nobody knows"),
        "engine": onnxruntime_fault.InvalidArgument("no such node"),
        "memory": MemoryError(),
        "mistake": KeyError("ours"),
    }
    verify, write = workshop.Workshop.verify, record.write_bundle

    def stumble(self: Any, asked: Any, made: Any) -> Any:
        if asked.target.name in faults:
            raise faults[asked.target.name]
        return verify(self, asked, made)

    def fill_up(path: Path, manifest: Manifest, members: Any) -> None:
        if manifest.artifacts[-1].target == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, manifest, members)

    monkeypatch.setattr(workshop.Workshop, "verify", stumble)
    monkeypatch.setattr(record, "write_bundle", fill_up)
    names, quick = (*faults, "full", "pytorch"), load_target("pytorch")
    asked = tuple(dataclasses.replace(quick, name=name) for name in names)
    source = NetworkSource(str(checkpoint))
    outcome = export_bundle(plan(source, tmp_path / "tiny.fastseg", targets=asked))
    assert {name: why.partition(" (")[0] for name, why in outcome.failed.items()} == {
        "unknown": "an operation that nobody knows",
        "engine": "InvalidArgument: no such node",
        "memory": "MemoryError",
        "mistake": "KeyError: 'ours'",
        "full": "OSError: [Errno 28] No space left on device",
    }
    assert [artifact.target for artifact in outcome.manifest.artifacts] == ["pytorch"]
    assert capsys.readouterr().err.count("Traceback") == 1  # of what is a mistake in the code


def test_what_its_own_toolchain_refuses_is_in_no_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "hear", lambda *given: None)
    monkeypatch.setattr(export, "refusal", lambda name, artifact: "it does not compile")
    own = dataclasses.replace(find_exporter("onnx"), referee="tensorrt-rtx")
    monkeypatch.setattr(export, "find_exporter", lambda name: own)
    made = plan(NetworkSource(str(checkpoint)), tmp_path / "tiny.fastseg")
    for _ in range(2):  # with --resume too
        outcome = export_bundle(made)
        assert outcome.failed == {"cpu-fp32": "it does not compile"}
        assert (outcome.manifest.artifacts, outcome.skipped) == ((), [])
        assert not made.out.exists()
        made = dataclasses.replace(made, resume=True)


def test_what_one_target_converted_another_takes_and_the_very_same_is_judged_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    converted, judged, told = list[Any](), list[str](), list[str]()
    convert, verify = workshop.convert, workshop.Workshop.verify
    monkeypatch.setattr(
        workshop, "convert", lambda *given: converted.append(given) or convert(*given)
    )
    monkeypatch.setattr(
        workshop.Workshop,
        "verify",
        lambda self, asked, made: judged.append(asked.target.name) or verify(self, asked, made),
    )
    first = TARGETS[0]
    twin = dataclasses.replace(first, name="twin", devices=())
    lenient = dataclasses.replace(first, name="lenient", gate=Gate(0.5, 0.9))
    asked = (first, twin, lenient, load_target("intel-bf16"))
    made = plan(NetworkSource(str(checkpoint)), tmp_path / "tiny.fastseg", targets=asked)
    manifest = export_bundle(made, told.append).manifest
    assert [artifact.target for artifact in manifest.artifacts] == [target.name for target in asked]
    assert len(converted) == 1
    assert judged == ["cpu-fp32", "lenient", "intel-bf16"]
    assert "twin: the files of cpu-fp32, judged there" in told
    assert len({artifact.files[0].sha256 for artifact in manifest.artifacts}) == 1
    for artifact in manifest.artifacts:
        engine = "openvino" if artifact.target == "intel-bf16" else "onnxruntime"
        assert artifact.requires["backend"] == engine
        assert artifact.verification["runner"].startswith(engine)
        assert artifact.entry == f"artifacts/{artifact.target}/model.onnx"
    assert named(manifest, "intel-bf16").precision == "bf16"
