"""Does the network give on this device what PyTorch gave where it was exported?

All scenes of a bundle are run when an engine opens an artifact for the first time on a device; what
passed is remembered in FASTSEG_CACHE, and later openings run one scene.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.arrays.metrics import Array, agreement
from fastseg_runtime.arrays.shared_files import cache_folder, write_file
from fastseg_runtime.bundle.manifest import SELFTEST_AGREEMENT, SELFTEST_AGREEMENTS, Artifact
from fastseg_runtime.engines.engine import find_precision

# Below what was recorded: other kernels round differently. On the scenes of a self-test, nano's
# cpu-fp32 gave the very same pixels in ONNX Runtime 1.17.3, 1.23.2 and 1.32.0, with and without
# graph optimizations; cpu-int8 0.004 less where 0.926 was recorded (a dark picture), 0.002 less at
# 0.840 (a mosaic), 0.005 less at 0.959 (noise), and 0.019 less at 0.741 on a grey one, which is no
# scene; LiteRT's android-fp16 0.002 at most. So the share that differs anyway, where two classes
# are nearly as likely, may grow by a fifth.
TOLERANCE, GROWTH = 0.02, 0.2
REVISION = 1  # raised when what surrounds an engine changes, so that all is tested again
MAX_PASSED = 200  # engines that are remembered; the oldest are forgotten
_MAX_FILE_BYTES = 64 << 10


@dataclass(frozen=True)
class SelfTest:
    """The outcome, of the scene that is nearest to its limit or furthest below."""

    agreement: float  # fraction of pixels
    required: float
    scene: int = 0  # its place in the bundle
    wrong_id: Optional[int] = None  # a class that the manifest does not name

    @property
    def passed(self) -> bool:
        """Return whether every scene agrees well enough."""
        return self.agreement >= self.required and self.wrong_id is None


def required_agreement(artifact: Artifact, scene: Optional[int] = None) -> float:
    """Return the fraction of pixels that must agree, in one scene of the bundle or in any."""
    each = artifact.extra.get(SELFTEST_AGREEMENTS)
    recorded = artifact.extra.get(SELFTEST_AGREEMENT)
    if scene is not None and isinstance(each, list) and scene < len(each):
        like = float(each[scene])
        return max(0.0, like - TOLERANCE - GROWTH * (1 - like))
    if recorded is not None:
        return max(0.0, float(recorded) - TOLERANCE)
    return find_precision(artifact.precision).selftest_agreement


def run_selftest(
    infer: Callable[[Array], Array],
    scenes: Iterable[Tuple[Array, Array]],
    artifact: Artifact,
    num_classes: int = 256,
) -> SelfTest:
    """Run scenes (image (H, W, 3) RGB, expected classes (h, w)) and compare.

    Args:
        infer: image in, ids of the image's size out.
        scenes: the first ones of the bundle, or all; at least one.
        num_classes: K; an id of K or more fails.
    """
    found = []
    for index, (image_HW3, expected_hw) in enumerate(scenes):
        height, width = image_HW3.shape[:2]
        classes_HW, expected_HW = infer(image_HW3), resize_nearest(expected_hw, width, height)
        share, largest = agreement(classes_HW, expected_HW), int(classes_HW.max())
        wrong_id = None if largest < num_classes else largest
        found.append(SelfTest(share, required_agreement(artifact, index), index, wrong_id))
    return min(found, key=lambda one: (one.wrong_id is None, one.agreement - one.required))


class PassedTests:
    """What passed all scenes here, in $FASTSEG_CACHE/selftests.json; without a folder, nothing.

    Args:
        facts: everything that decides what an engine computes, as JSON has it.
    """

    def __init__(self, facts: Any) -> None:
        text = json.dumps(facts, sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:32]

    def has_passed(self) -> bool:
        """Return whether it did."""
        return self._key in _read_passed()

    def note(self) -> None:
        """Note that it did; of two processes that do at once, one may be lost and tested again."""
        with suppress(OSError):
            passed = {**_read_passed(), self._key: 1}
            newest = dict(list(passed.items())[-MAX_PASSED:])
            write_file(_file(), json.dumps(newest, indent=0).encode())


def forget_passed_tests() -> None:
    """Let every engine run all scenes again."""
    with suppress(OSError):
        _file().unlink()


def _file() -> Path:
    return cache_folder() / "selftests.json"


def _read_passed() -> Dict[str, int]:
    path = _file()
    try:
        if not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:  # a pipe has no end
            return {}
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
