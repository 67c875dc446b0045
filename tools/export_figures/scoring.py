"""What the scripts in this folder share: exporting a network, pictures, scores on a test split."""

from pathlib import Path

import numpy as np
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Outcome, Plan, export_bundle
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import Verification, verify
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import resize_bilinear
from fastseg_runtime.arrays.metrics import Array
from fastseg_targets.target import select_targets
from rich.console import Console

from fastseg import Network
from fastseg.data import open_dataset

log = Console(stderr=True, highlight=False)
ALL_IMAGES = 10**9  # more than a split has


def export(
    network: str, targets: list[str], bundle: Path, data: str, images: int = Plan.verify_images
) -> Outcome:
    """Export targets, calibrated and verified on a data set; progress goes to stderr."""
    recipe = Recipe(NetworkSource(network), Calibration(data))
    plan = Plan(recipe, tuple(select_targets(targets)), bundle, data, images)
    return export_bundle(plan, lambda line: log.print(line, markup=False, soft_wrap=True))


def open_scenes(network: Network, data: str, images: int = ALL_IMAGES) -> VerificationSet:
    """Return pictures of a test split, with what PyTorch makes of them."""
    infer, classes = pytorch_runner(network).infer_new, network.info.classes
    return VerificationSet(data, images, infer, classes, split="test")


def score(
    bundle: Path, target: str, scenes: VerificationSet, selftest: bool = True
) -> Verification:
    """Run an artifact over all scenes."""
    log.print(f"{target}: {len(scenes)} test images")
    with RealtimeSegmentation(bundle, target=target, selftest=selftest) as session:
        return verify(session, scenes)


def show_scores(found: Verification) -> tuple[str, str, str, str]:
    """Return PyTorch's mIoU, the artifact's, its drop and the agreement, in percent."""
    low, high = found.miou_drop_ci95 or (0.0, 0.0)
    return (
        f"{100 * (found.reference_miou or 0):.2f}",
        f"{100 * (found.miou or 0):.2f}",
        f"{100 * (found.miou_drop or 0):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        f"{100 * found.agreement:.2f}",
    )


def pictures(data: str, split: str, count: int, size: tuple[int, int]) -> list[Array]:
    """Return pictures (1, H, W, 3) of a size (width, height), spread over a split."""
    dataset = open_dataset(data, split)
    picked = [dataset[index * len(dataset) // count].image_HW3 for index in range(count)]
    return [np.ascontiguousarray(resize_bilinear(image, *size))[None] for image in picked]
