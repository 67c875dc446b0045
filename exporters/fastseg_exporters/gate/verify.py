"""Is an artifact as good as the network it came from? Measured through the device's runtime.

Shape letters: N images, K classes. Drops are fractions, positive is worse.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import (
    Array,
    agreement,
    confusion_matrix,
    iou_per_class,
    labelled_miou,
    occurring_classes,
)
from fastseg_runtime.arrays.stats import bootstrap, interval95
from fastseg_runtime.engines.engine import find_precision
from fastseg_targets.target import Gate

from fastseg_exporters.gate.confidence import (
    MOST_ERROR,
    MOST_ERROR_INT8,
    ReferenceConfidence,
    Reliability,
)
from fastseg_exporters.gate.reference import Scene, VerificationSet

ENOUGH_SHARE = 0.002  # of the labelled pixels: the IoU of a rarer class says little
RESAMPLES = 1000  # the ends of the interval then vary by a fiftieth of its width


@dataclass(frozen=True)
class ConfidenceFound:
    """How sure an artifact is, beside PyTorch, and beside how often it is right; fractions."""

    temperature: float
    fitted_on: int  # pictures with labels; 0: none, the temperature is neutral
    images: int  # others, on which the expected calibration error (ECE) was found
    ece_before: float | None  # of PyTorch at a temperature of 1
    ece: float | None
    error: float  # mean difference from PyTorch's


@dataclass(frozen=True)
class Verification:
    """What the manifest keeps of a verification; see docs/bundle.md."""

    runner: str
    data: str
    images: int
    agreement: float
    latency_ms: float  # median of infer() on this machine
    miou: float | None = None
    reference_miou: float | None = None
    miou_drop: float | None = None
    miou_drop_ci95: tuple[float, float] | None = None
    worst_class: str | None = None
    worst_class_drop: float | None = None
    selftest_agreement: float | None = None  # with PyTorch, on the worst self-test scene
    selftest_agreements: tuple[float, ...] = ()  # on each
    rare_classes: tuple[str, ...] = ()  # left out of worst_class: too few pixels to say
    miou_classes: int | None = None  # that occur in labels: miou and reference_miou are their mean
    file: str = ""  # of several that an engine may open: the one that does worst, which this is of
    confidence: ConfidenceFound | None = None  # of an artifact that gives one

    def to_table(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return dataclasses.asdict(self)


def verify(
    session: RealtimeSegmentation,
    scenes: VerificationSet,
    progress: Callable[[int, int], None] = lambda done, total: None,
    sure: ReferenceConfidence | None = None,
) -> Verification:
    """Run an artifact on every scene and compare it with PyTorch.

    Args:
        session: the artifact in the runtime.
        scenes: images, labels and PyTorch's class maps.
        progress: told the number of images done and in all.
        sure: PyTorch's confidence, where the artifact is to give one.
    """
    names = [c.name for c in session.classes]
    agreements, latencies_ms = [], []
    ours_NKK, references_NKK = [], []
    judge = None if sure is None else _ConfidenceJudge(sure)
    for done, scene in enumerate(scenes):
        progress(done, len(scenes))
        sure_HW = None if judge is None else np.empty(scene.image_HW3.shape[:2], np.uint8)
        start = time.perf_counter()
        classes_HW = (
            session.infer(scene.image_HW3)
            if sure_HW is None
            else session.infer(scene.image_HW3, confidence=sure_HW)
        )
        latencies_ms.append((time.perf_counter() - start) * 1e3)
        if judge is not None and sure_HW is not None:
            judge.add(done, scene, classes_HW, sure_HW)
        agreements.append(agreement(classes_HW, scene.reference_HW))
        if scene.label_HW is not None:
            ours_NKK.append(confusion_matrix(classes_HW, scene.label_HW, len(names)))
            references_NKK.append(confusion_matrix(scene.reference_HW, scene.label_HW, len(names)))
    measured = Verification(
        runner=f"{session.info.backend} {session.info.version}".strip(),
        data=scenes.name,
        images=len(scenes),
        agreement=float(np.mean(agreements)),
        latency_ms=float(np.median(latencies_ms)),
        confidence=None if judge is None else judge.found(),
    )
    if not ours_NKK or occurring_classes(np.sum(ours_NKK + references_NKK, axis=0)) < 2:
        return measured  # labels of one class, and nothing else seen: they tell nothing
    return _with_labels(measured, np.stack(ours_NKK), np.stack(references_NKK), names)


class _ConfidenceJudge:
    """Collects what an artifact's confidence is worth, picture by picture."""

    def __init__(self, sure: ReferenceConfidence) -> None:
        self._sure, self._reliability = sure, Reliability()
        self._errors: list[float] = []
        self._images = 0

    def add(self, index: int, scene: Scene, classes_HW: Array, confidence_HW: Array) -> None:
        expected_HW = self._sure.maps[index].astype(np.int16)
        self._errors.append(float(np.abs(confidence_HW - expected_HW).mean()) / 255)
        if self._sure.counts_for_report(index) and scene.label_HW is not None:
            self._reliability.add(confidence_HW, classes_HW, scene.label_HW)
            self._images += 1

    def found(self) -> ConfidenceFound:
        sure = self._sure
        return ConfidenceFound(
            temperature=sure.temperature,
            fitted_on=sure.fitted_on,
            images=self._images,
            ece_before=sure.ece_before,
            ece=self._reliability.error,
            error=float(np.mean(self._errors)),
        )


def _with_labels(
    measured: Verification, ours_NKK: Array, references_NKK: Array, names: list[str]
) -> Verification:
    ours, reference = labelled_miou(ours_NKK.sum(0)), labelled_miou(references_NKK.sum(0))
    drops_K = iou_per_class(references_NKK.sum(0)) - iou_per_class(ours_NKK.sum(0))
    pixels_K = references_NKK.sum(axis=(0, 2))
    enough_K = pixels_K >= ENOUGH_SHARE * pixels_K.sum()
    worst = int(np.argmax(np.where(enough_K, drops_K, -np.inf)))
    return dataclasses.replace(
        measured,
        miou=ours,
        reference_miou=reference,
        miou_drop=reference - ours,
        miou_drop_ci95=bootstrap_drop(ours_NKK, references_NKK),
        worst_class=names[worst],
        worst_class_drop=float(drops_K[worst]),
        miou_classes=int(np.count_nonzero(pixels_K)),
        rare_classes=tuple(n for n, enough in zip(names, enough_K, strict=True) if not enough),
    )


def bootstrap_drop(ours_NKK: Array, references_NKK: Array) -> tuple[float, float]:
    """Return the 95 % interval of the mIoU drop, resampling images in pairs.

    The same resampled images count for both, so that what is hard about an image cancels.
    """
    count = len(ours_NKK)

    def drop(indices_N: Array) -> float:
        weights_N = np.bincount(indices_N, minlength=count)
        pair = (np.tensordot(weights_N, x_NKK, 1) for x_NKK in (references_NKK, ours_NKK))
        reference, ours = map(labelled_miou, pair)
        return reference - ours

    return interval95(bootstrap(drop, count, RESAMPLES))


def failures(verification: Verification, gate: Gate, precision: str) -> list[str]:
    """Return why an artifact may not ship; empty if it may.

    With labels the mIoU decides, without them agreement. But a network that scores little has
    little to lose: a float artifact must agree all the same, any other as a device asks of it.
    """
    known, reasons = find_precision(precision), []
    in_full = known.is_float or on_agreement_alone(verification)
    limit = known.gate_agreement if in_full else known.selftest_agreement
    if not verification.agreement >= limit:
        reasons.append(f"agreement {verification.agreement:.3f}, limit {limit:.3f}")
    if sure := verification.confidence:
        most = MOST_ERROR if known.is_float else MOST_ERROR_INT8
        if not sure.error <= most:
            reasons.append(f"confidence differs by {sure.error:.3f}, limit {most:.3f}")
    if verification.miou_drop is None or verification.worst_class_drop is None:
        return reasons
    if not verification.miou_drop <= gate.miou_drop:
        reasons.append(f"mIoU drops by {verification.miou_drop:.3f}, limit {gate.miou_drop:.3f}")
    if not verification.worst_class_drop <= gate.class_drop:
        reasons.append(
            f"{verification.worst_class} drops by {verification.worst_class_drop:.3f}, "
            f"limit {gate.class_drop:.3f}"
        )
    return reasons


def worst_of(found: Sequence[Verification], gate: Gate, precision: str) -> Verification:
    """Return the one that speaks for all files of an artifact: any that fails, else the worst.

    Of each scene of the self-test it keeps the least that a file gave: a device may open any.
    """

    def badness(one: Verification) -> tuple[bool, float, float]:
        reasons = failures(one, gate, precision) + selftest_failures(one, precision)
        return bool(reasons), one.miou_drop or 0.0, -one.agreement

    each = [one.selftest_agreements for one in found]
    least = tuple(min(scene) for scene in zip(*each, strict=True))
    return dataclasses.replace(
        max(found, key=badness),
        selftest_agreement=min(least, default=None),
        selftest_agreements=least,
    )


def on_agreement_alone(verification: Verification) -> bool:
    """Return whether no label told what the pixels that differ cost."""
    return verification.miou_drop is None


def selftest_failures(verification: Verification, precision: str) -> list[str]:
    """Return in which scenes of the self-test an artifact is wrong; empty if in none.

    What is recorded of a scene is the limit on devices: it must not be what a broken one gives.
    """
    limit = find_precision(precision).scene_agreement
    if limit is None:
        return []
    return [
        f"agreement {found:.3f} in scene {scene} of the self-test, limit {limit:.3f}"
        for scene, found in enumerate(verification.selftest_agreements)
        if not found >= limit
    ]
