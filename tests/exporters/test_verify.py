import dataclasses

import numpy as np
import pytest
from fastseg_exporters.verify import Verification, bootstrap_drop, failures
from fastseg_targets.profile import Gate

GOOD = Verification(
    runner="onnxruntime 1",
    data="camvid val",
    images=20,
    agreement=0.99,
    latency_ms=10.0,
    miou=0.60,
    reference_miou=0.605,
    miou_drop=0.005,
    worst_class="Pole",
    worst_class_drop=0.02,
)


def test_an_artifact_within_its_limits_passes() -> None:
    assert failures(GOOD, Gate(), "int8") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"miou_drop": 0.02}, "mIoU drops by 0.020, limit 0.010"),
        ({"miou_drop": float("nan")}, "mIoU drops"),
        ({"worst_class_drop": 0.04}, "Pole drops by 0.040, limit 0.030"),
    ],
)
def test_an_artifact_outside_them_is_told_why(change: dict[str, float], reason: str) -> None:
    (found,) = failures(dataclasses.replace(GOOD, **change), Gate(), "int8")
    assert reason in found


def test_without_labels_agreement_with_pytorch_decides() -> None:
    unlabelled = Verification("onnxruntime 1", "generated scenes", 20, 0.95, 10.0)
    assert failures(unlabelled, Gate(), "int8") == []
    assert "agreement 0.950" in failures(unlabelled, Gate(), "fp32")[0]


def test_the_interval_of_a_drop_holds_the_drop_and_is_zero_for_equal_predictions() -> None:
    generator = np.random.default_rng(0)
    reference_NKK = generator.integers(0, 100, (30, 3, 3)) + 300 * np.eye(3, dtype=np.int64)
    assert bootstrap_drop(reference_NKK, reference_NKK) == (0.0, 0.0)
    worse_NKK = reference_NKK + 40 * (1 - np.eye(3, dtype=np.int64))
    low, high = bootstrap_drop(worse_NKK, reference_NKK)
    assert 0 < low < high
