"""What an artifact may lose, just inside and just outside of each limit."""

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastseg_exporters.gate.reference import Scene
from fastseg_exporters.gate.verify import (
    Verification,
    _with_labels,
    bootstrap_drop,
    failures,
    selftest_failures,
    verify,
    worst_of,
)
from fastseg_runtime.arrays.metrics import confusion_matrix
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_targets.target import Gate

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
    ("key", "limit", "reason"),
    [
        ("miou_drop", 0.01, "mIoU drops by 0.010, limit 0.010"),
        ("worst_class_drop", 0.03, "Pole drops by 0.030, limit 0.030"),
    ],
)
def test_an_artifact_just_outside_them_is_told_why(key: str, limit: float, reason: str) -> None:
    assert failures(dataclasses.replace(GOOD, **{key: limit}), Gate(), "int8") == []
    beyond = dataclasses.replace(GOOD, **{key: limit + 1e-4})
    assert failures(beyond, Gate(), "int8") == [reason]


@pytest.mark.parametrize(
    ("worse", "precision"),
    [
        ({"miou_drop": 0.0051}, "int8"),
        ({"agreement": 0.9899}, "int8"),
        ({"miou_drop": 0.0, "worst_class_drop": 0.0301}, "int8"),  # fails, though it loses less
        ({"miou_drop": 0.0, "agreement": 0.94}, "fp16"),
        ({"miou_drop": 0.0, "selftest_agreements": (1.0, 0.2)}, "fp16"),
    ],
)
def test_of_several_files_the_one_that_fails_or_does_worst_speaks_for_all(
    worse: dict[str, Any], precision: str
) -> None:
    good = dataclasses.replace(GOOD, agreement=0.9995, file="a", selftest_agreements=(0.98, 0.99))
    good = dataclasses.replace(good, agreement=0.99) if precision == "int8" else good
    bad = dataclasses.replace(good, **{"file": "b", "selftest_agreements": (0.99, 0.98), **worse})
    for found in ((good, bad), (bad, good)):
        spoken = worst_of(found, Gate(), precision)
        assert spoken.file == "b"
        assert spoken.selftest_agreements == (0.98, bad.selftest_agreements[1])
        assert spoken.selftest_agreement == min(spoken.selftest_agreements)


@pytest.mark.parametrize("key", ["miou_drop", "worst_class_drop"])
def test_a_drop_that_is_no_number_does_not_pass(key: str) -> None:
    assert failures(dataclasses.replace(GOOD, **{key: float("nan")}), Gate(), "int8") != []


@dataclasses.dataclass(frozen=True)
class OneScene:
    """A session and its verification set: one picture, whose class map is made up."""

    ids_HW: Any
    label_HW: Any
    classes = (ClassInfo("road", (0, 0, 0)), ClassInfo("pole", (1, 1, 1)))
    info = SimpleNamespace(backend="none", version="")
    name = "one scene"

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Scene]:
        yield Scene(self.label_HW, self.label_HW, self.label_HW)  # PyTorch is right everywhere

    def infer(self, image_HW3: Any) -> Any:
        return self.ids_HW


def test_a_stray_pixel_of_a_class_without_labels_moves_no_mean() -> None:
    label_HW = np.zeros((1, 1000), np.uint8)
    stray_HW = label_HW.copy()
    stray_HW[0, 0] = 1
    for ids_HW, reference_HW, drop in ((stray_HW, label_HW, 1e-3), (label_HW, stray_HW, -1e-3)):
        ours, reference = (
            np.stack([confusion_matrix(x_HW, label_HW, 2)]) for x_HW in (ids_HW, reference_HW)
        )
        found = _with_labels(GOOD, ours, reference, ["road", "pole"])
        assert found.miou_drop == pytest.approx(drop)
        assert found.miou_drop_ci95 == pytest.approx((drop, drop))
        assert found.miou_classes == 1


@pytest.mark.parametrize(("pixels", "is_rare"), [(1, True), (2, False)])
def test_a_class_is_judged_from_two_of_1000_pixels_on(pixels: int, is_rare: bool) -> None:
    label_HW = np.zeros((1, 1000), np.uint8)
    label_HW[0, :pixels] = 1
    scene = OneScene(np.zeros_like(label_HW), label_HW)  # no pole is found
    found = verify(scene, scene)
    assert found.rare_classes == (("pole",) if is_rare else ())
    assert found.worst_class == ("road" if is_rare else "pole")


def unlabelled(agreement: float) -> Verification:
    return Verification("onnxruntime 1", "generated scenes", 20, agreement, 10.0)


@pytest.mark.parametrize(
    ("precision", "limit"), [("fp32", 0.999), ("fp16", 0.97), ("int8", 0.95), ("palettized", 0.95)]
)
def test_without_labels_agreement_with_pytorch_decides(precision: str, limit: float) -> None:
    assert failures(unlabelled(limit + 1e-4), Gate(), precision) == []
    (found,) = failures(unlabelled(limit - 1e-4), Gate(), precision)
    assert f"limit {limit:.3f}" in found


def test_agreement_that_is_no_number_does_not_pass() -> None:
    assert failures(unlabelled(float("nan")), Gate(), "int8") != []


def test_an_artifact_must_agree_even_where_labels_find_nothing_lost() -> None:
    """An untrained U-Net lost no mIoU in an int8 that agreed in 21 % of the pixels."""
    for precision, limit in (("fp32", 0.999), ("fp16", 0.97), ("int8", 0.8)):
        enough, less = (dataclasses.replace(GOOD, agreement=limit + d) for d in (1e-4, -1e-4))
        assert failures(enough, Gate(), precision) == []
        assert failures(less, Gate(), precision) == [f"agreement {limit:.3f}, limit {limit:.3f}"]


def test_the_interval_of_a_drop_holds_the_drop_and_is_zero_for_equal_predictions() -> None:
    generator = np.random.default_rng(0)
    reference_NKK = generator.integers(0, 100, (30, 3, 3)) + 300 * np.eye(3, dtype=np.int64)
    assert bootstrap_drop(reference_NKK, reference_NKK) == (0.0, 0.0)
    worse_NKK = reference_NKK + 40 * (1 - np.eye(3, dtype=np.int64))
    low, high = bootstrap_drop(worse_NKK, reference_NKK)
    assert 0 < low < high


def test_95_of_100_resamples_lie_within_the_interval_of_a_drop() -> None:
    generator = np.random.default_rng(1)
    lost_N = generator.integers(0, 100, 200)  # of 1000 pixels of the one class in each image
    ours_NKK = np.zeros((200, 2, 2), np.int64)
    ours_NKK[:, 0] = np.stack([1000 - lost_N, lost_N], 1)
    ours_NKK[:, 1, 1] = 10**9  # the other class loses nothing that shows
    references_NKK = np.zeros_like(ours_NKK)
    references_NKK[:, (0, 1), (0, 1)] = 1000, 10**9
    low, high = bootstrap_drop(ours_NKK, references_NKK)
    resampled = generator.choice(lost_N, (20_000, 200)).mean(axis=1) / 1000 / 2
    assert np.mean((low <= resampled) & (resampled <= high)) == pytest.approx(0.95, abs=0.015)


def test_a_float_artifact_may_be_wrong_in_no_scene_of_the_self_test() -> None:
    def found(*each: float) -> Verification:
        return dataclasses.replace(GOOD, selftest_agreements=each)

    assert selftest_failures(GOOD, "fp32") == []
    assert selftest_failures(found(1.0, 0.99), "fp32") == []
    assert selftest_failures(found(1.0, 0.989), "fp32") == [
        "agreement 0.989 in scene 1 of the self-test, limit 0.990"
    ]
    assert selftest_failures(found(0.9), "fp16") == [] != selftest_failures(found(0.899), "fp16")
    assert len(selftest_failures(found(float("nan"), 0.0), "fp32")) == 2
    assert selftest_failures(found(0.0), "int8") == []
