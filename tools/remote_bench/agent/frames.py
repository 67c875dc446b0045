"""The frames of a run, in memory before the clock starts.

Without a folder they are the bundle's own self-test images, so that what is timed is also checked.
A folder holds NAME.npy (uint8, (H, W, 3), RGB) and, where there are labels, NAME.label.npy (uint8,
(H, W)), as the workstation prepares them: a bare board need not read PNG or video.
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional

_MOST_BYTES = 256 * 1024 * 1024


class Frame(NamedTuple):
    """One image with what is expected of it."""

    image_HW3: Any
    reference_HW: Optional[Any]  # PyTorch's class map, of a self-test image
    label_HW: Optional[Any]  # the truth


def folder_frames(folder: str) -> List[Frame]:
    """Return the frames of a prepared folder in the order of their names, 256 MB at most.

    Raises:
        ValueError: the folder holds no frame, or a file is not of the described form.
    """
    import numpy as np

    names = sorted(name for name in os.listdir(folder) if _is_frame(name))
    frames: List[Frame] = []
    held = 0
    for name in names:
        image = _load(np, os.path.join(folder, name), 3)
        label_path = os.path.join(folder, name[: -len(".npy")] + ".label.npy")
        label = _load(np, label_path, 2) if os.path.exists(label_path) else None
        held += image.nbytes
        if held > _MOST_BYTES and frames:
            break
        frames.append(Frame(image, None, label))
    if not frames:
        raise ValueError(f"{folder} holds no frames; expected NAME.npy files")
    return frames


def _is_frame(name: str) -> bool:
    return name.endswith(".npy") and not name.endswith(".label.npy")


def _load(np: Any, path: str, dimensions: int) -> Any:
    array = np.load(path, allow_pickle=False)
    good = array.dtype == np.uint8 and array.ndim == dimensions
    if not good or (dimensions == 3 and array.shape[2] != 3):
        raise ValueError(f"{path}: expected uint8 with {dimensions} axes, got {array.dtype}")
    return array


class Labelled(NamedTuple):
    """What a comparison needs of fastseg_runtime."""

    metrics: Any  # the module fastseg_runtime.arrays.metrics
    resize_nearest: Any  # fastseg_runtime.arrays.image's
    classes: int


def score(judge: Labelled, frames: List[Frame], outputs: List[Any]) -> Dict[str, Any]:
    """Compare the outputs of a run with what was expected.

    Args:
        judge: how to compare.
        frames: what was run.
        outputs: the class map of each frame, None for one that was not reached.

    Returns:
        {"images", "agreement", "miou", "labelled"}: the least agreement of any self-test image,
        and mIoU over the labelled frames; None where there is nothing to compare with.
    """
    pairs = [(frame, out) for frame, out in zip(frames, outputs) if out is not None]
    agreements = [
        judge.metrics.agreement(out, _fit(judge, f.reference_HW, out))
        for f, out in pairs
        if f.reference_HW is not None
    ]
    counts = [
        judge.metrics.confusion_matrix(out, _fit(judge, f.label_HW, out), judge.classes)
        for f, out in pairs
        if f.label_HW is not None
    ]
    return {
        "images": len(pairs),
        "agreement": min(agreements) if agreements else None,
        "miou": judge.metrics.mean_iou(sum(counts)) if counts else None,
        "labelled": len(counts),
    }


def _fit(judge: Labelled, classes_hw: Any, out_HW: Any) -> Any:
    height, width = out_HW.shape
    return judge.resize_nearest(classes_hw, width, height)
