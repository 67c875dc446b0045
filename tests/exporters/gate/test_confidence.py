"""The confidence beside the ids: one contract in every format, calibrated and judged."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.confidence import Reliability, reference_confidence
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import (
    MOST_ERROR,
    MOST_ERROR_INT8,
    ConfidenceFound,
    Verification,
    failures,
)
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec, numbered_classes
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines.backend import Backend, ModelSource, load_backend
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend
from fastseg_targets.target import Gate, load_target
from torch import nn

from fastseg import CheckpointInfo, Network
from fastseg.data.generated.street.scene import draw_street
from fastseg.network import hash_weights

WIDTH, HEIGHT, CLASSES = 128, 64, 5
DATA = "synthetic:size=96x64,train=4,val=4,test=2"
TEMPERATURE = 1.7


def network_of_a_stage() -> Network:
    """A network that is sure here and unsure there."""
    torch.manual_seed(0)
    head = nn.Conv2d(8, CLASSES, 1)
    head.weight.data *= 12
    model = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), head).eval()
    info = CheckpointInfo("own", numbered_classes(CLASSES), WIDTH, HEIGHT)
    return Network(model, info, "own", hash_weights(model.state_dict()))


def asked(network: Network, target: str, precision: str) -> Request:
    recipe = Recipe(NetworkSource("own"), Calibration(count=4), temperature=TEMPERATURE)
    return Request(network, Conversion(recipe, load_target(target), precision))


def expected(network: Network, image_1HW3: Any) -> Any:
    """The definition, in numpy."""
    with torch.inference_mode():
        logits = network.graph("logits")(torch.from_numpy(image_1HW3))[0].numpy().astype(float)
    odds = np.exp(logits / TEMPERATURE)
    return 255 * odds.max(axis=0) / odds.sum(axis=0)


@pytest.mark.filterwarnings("ignore")  # of the converters
@pytest.mark.parametrize(
    ("target", "precision", "most", "dtype"),
    [
        ("cpu-fp32", "fp32", 1, np.uint8),
        ("cpu-int8", "int8", 30, np.uint8),
        ("jetson-fp16", "fp32", 1, np.uint8),
        ("jetson-fp16", "fp16", 4, np.uint8),
        ("jetson-int8", "int8", 30, np.uint8),
        pytest.param("android-fp32", "fp32", 1, np.uint8, marks=pytest.mark.slow),
        pytest.param("android-int8", "int8", 30, np.uint8, marks=pytest.mark.slow),
        pytest.param("ios-fp16", "fp16", 4, np.int32, marks=pytest.mark.slow),
    ],
)
def test_every_format_gives_the_softmax_of_the_best_class_beside_the_same_ids(
    target: str, precision: str, most: int, dtype: Any, tmp_path: Path
) -> None:
    network = network_of_a_stage()
    request = asked(network, target, precision)
    if (exporter := request.conversion.target.exporter) in ("tflite", "coreml"):
        pytest.importorskip({"tflite": "litert_torch", "coreml": "coremltools"}[exporter])
    made = load_exporter(exporter)(request, tmp_path)
    assert made.io["confidence"] == np.dtype(dtype).name
    for entry in (made.entry, *made.alternatives):
        backend = load_backend("litert")() if exporter == "tflite" else OnnxRuntimeBackend()
        if exporter == "coreml":
            from fastseg_exporters.coreml.backend_mil import MilBackend

            backend = MilBackend()
        source = ModelSource(
            Artifact("t", made.format, precision, entry, (), made.io),
            InputSpec(WIDTH, HEIGHT),
            OutputSpec(),
            read=lambda path: (tmp_path / path).read_bytes(),
            locate=lambda entry=entry: tmp_path / entry,  # type: ignore[misc]
        )
        backend.open(source)
        check(backend, network, most, dtype)
        backend.close()


def check(backend: Backend, network: Network, most: int, dtype: Any) -> None:
    plain = network.graph()
    spread = []
    for seed in range(3):
        image_1HW3 = draw_street(np.random.default_rng(seed), WIDTH, HEIGHT)[0][None]
        ids, confidence = (np.array(x) for x in backend.infer(image_1HW3))
        assert confidence.shape == (1, HEIGHT // 8, WIDTH // 8) and confidence.dtype == dtype
        errors = np.abs(confidence[0] - expected(network, image_1HW3))
        assert errors.max() <= most if most < 30 else errors.mean() < most
        same = (ids == plain(torch.from_numpy(image_1HW3)).numpy()).mean()  # type: ignore[union-attr]
        assert same > (0.99 if most < 30 else 0.8)
        spread.append(confidence)
    assert np.ptp(spread) > 60


def test_an_export_fits_the_temperature_and_the_manifest_has_the_errors(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(NetworkSource(str(checkpoint)), Calibration(DATA, 4))
    out = tmp_path / "tiny.fastseg"
    plan = Plan(recipe, (load_target("cpu-fp32"),), out, DATA, 4, confidence=True)
    told: list[str] = []
    assert export_bundle(plan, told.append).failed == {}
    assert any(
        "temperature of the confidence" in line and "fitted on 2 pictures" in line for line in told
    )
    with open_bundle(out) as bundle:
        (artifact,) = bundle.manifest.artifacts
    found = (artifact.verification or {})["confidence"]
    assert artifact.io["confidence"] == "uint8"
    assert (found["fitted_on"], found["images"]) == (2, 2)
    assert 0 <= found["ece"] <= 1 and 0 <= found["ece_before"] <= 1
    assert found["error"] < 0.005
    frame_HW3 = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    with RealtimeSegmentation(out) as seg:
        confidence_HW = np.zeros((50, 70), np.uint8)
        classes_HW = seg.infer(frame_HW3, confidence=confidence_HW)
        np.testing.assert_array_equal(classes_HW, seg.infer(frame_HW3))
        assert 255 / len(seg.classes) - 1 <= confidence_HW.min() <= confidence_HW.max()
        batch, of_two = np.stack([frame_HW3, frame_HW3[::-1]]), np.zeros((2, 50, 70), np.uint8)
        seg.infer(batch, confidence=of_two)
        np.testing.assert_array_equal(of_two[0], confidence_HW)
        with pytest.raises(ValueError, match=r"confidence must be .* uint8 \(50, 70\), got uint8"):
            seg.infer(frame_HW3, confidence=np.zeros((70, 50), np.uint8))


def test_without_labels_the_temperature_is_neutral(checkpoint: Path) -> None:
    network = NetworkSource(str(checkpoint)).open()
    runner = pytorch_runner(network)
    scenes = VerificationSet(None, 2, runner.infer_new, network.info.classes)
    sure = reference_confidence(network, scenes)
    assert (sure.temperature, sure.fitted_on, sure.ece_before) == (1.0, 0, None)
    assert not sure.counts_for_report(1)
    assert [x.shape for x in sure.maps] == [x.reference_HW.shape for x in scenes]


def test_no_confidence_is_made_of_probabilities() -> None:
    network = network_of_a_stage()
    sure = dataclasses.replace(network, model=nn.Sequential(network.model, nn.Softmax(1)))
    scenes = VerificationSet(None, 2, pytorch_runner(sure).infer_new, sure.info.classes)
    with pytest.raises(ValueError, match=r"made of logits, and .* gives probabilities"):
        reference_confidence(sure, scenes)
    faint = dataclasses.replace(network, model=nn.Sequential(network.model, nn.Sigmoid()))
    assert len(reference_confidence(faint, scenes).maps) == 2


def test_a_network_that_is_too_sure_gets_a_higher_temperature_and_is_calibrated_by_it(
    checkpoint: Path,
) -> None:
    network = NetworkSource(str(checkpoint)).open()
    head: Any = [m for m in network.model.modules() if isinstance(m, nn.Conv2d)][-1]
    head.weight.data *= 20  # the same classes, all of them certain
    runner = pytorch_runner(network)
    scenes = VerificationSet(DATA, 4, runner.infer_new, network.info.classes)
    sure = reference_confidence(network, scenes)
    after = Reliability()
    for index, scene in enumerate(scenes):
        if sure.counts_for_report(index):
            after.add(sure.maps[index], scene.reference_HW, np.asarray(scene.label_HW))
    assert sure.temperature > 2
    assert sure.ece_before is not None and after.error is not None
    assert after.error < sure.ece_before


def test_the_calibration_error_is_the_gap_between_sure_and_right_bin_by_bin() -> None:
    sure = np.array([[255, 255, 128, 128, 0]], np.uint8)
    label = np.array([[1, 1, 1, 0, 255]], np.uint8)  # the last one is ignored
    reliability = Reliability()
    assert reliability.error is None
    reliability.add(sure, np.array([[1, 0, 1, 1, 3]], np.uint8), label)
    half = abs(0.5 - 128 / 255)
    assert reliability.error == pytest.approx((0.5 * 2 + half * 2) / 4)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", MOST_ERROR), ("int8", MOST_ERROR_INT8)])
def test_the_gate_refuses_a_confidence_that_is_not_pytorchs(precision: str, limit: float) -> None:
    sure = ConfidenceFound(1.0, 2, 2, 0.1, 0.02, limit)
    found = Verification("ort", "d", 4, 1.0, 1.0, 0.5, 0.5, 0.0, (0, 0), "a", 0.0, confidence=sure)
    assert failures(found, Gate(), precision) == []
    worse = dataclasses.replace(sure, error=limit + 1e-4)
    (reason,) = failures(dataclasses.replace(found, confidence=worse), Gate(), precision)
    assert "confidence differs by" in reason
