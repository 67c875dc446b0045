"""Does the network give on this device what PyTorch gave where it was exported?"""

from dataclasses import dataclass
from typing import Callable, Iterable, Tuple

from fastseg_runtime.image import resize_nearest
from fastseg_runtime.manifest import Artifact
from fastseg_runtime.metrics import Array, agreement

# Fraction of pixels that must agree where the exporter recorded nothing; a broken engine is far
# below. Integer networks decide differently where two classes are nearly as likely.
MIN_AGREEMENT = {"fp32": 0.99, "fp16": 0.97}
MIN_AGREEMENT_INT8 = 0.8
RECORDED = "selftest_agreement"  # in Artifact.extra: what the exporter measured
TOLERANCE = 0.02  # below what was recorded: other kernels round differently


@dataclass(frozen=True)
class SelfTest:
    """The outcome."""

    agreement: float  # of the worst scene, fraction of pixels
    required: float

    @property
    def passed(self) -> bool:
        """Return whether every scene agrees well enough."""
        return self.agreement >= self.required


def required_agreement(artifact: Artifact) -> float:
    """Return the fraction of pixels that must agree."""
    recorded = artifact.extra.get(RECORDED)
    if isinstance(recorded, (int, float)):
        return max(0.0, float(recorded) - TOLERANCE)
    return MIN_AGREEMENT.get(artifact.precision, MIN_AGREEMENT_INT8)


def run_selftest(
    infer: Callable[[Array], Array], scenes: Iterable[Tuple[Array, Array]], artifact: Artifact
) -> SelfTest:
    """Run scenes (image (H, W, 3) RGB, expected classes (h, w)) and compare.

    Args:
        infer: image in, ids of the image's size out.
        scenes: at least one.
        artifact: what runs.
    """
    worst = 1.0
    for image_HW3, expected_hw in scenes:
        height, width = image_HW3.shape[:2]
        expected_HW = resize_nearest(expected_hw, width, height)
        worst = min(worst, agreement(infer(image_HW3), expected_HW))
    return SelfTest(worst, required_agreement(artifact))
