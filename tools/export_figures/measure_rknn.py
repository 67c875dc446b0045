"""Measure what Rockchip's simulator makes of a network; print a table in Markdown.

    fastseg-export NETWORK --target cpu-fp32 --output logits --out logits.fastseg
    python tools/export_figures/measure_rknn.py NETWORK logits.fastseg camvid:PATH

The referee "rknn" (`make referees REFEREES=rknn`) builds the bundle's logits for fp16 and int8 and
runs them; int8's ranges come from training images. Ids are then made as on a device, and compared
with those of the author's module and with the labels.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import Verdict, select_referees
from fastseg_exporters.gate.reference import ModuleBackend, pytorch_runner
from fastseg_runtime.arrays.metrics import Array, agreement, confusion_matrix, mean_iou
from fastseg_runtime.bundle.reader import Bundle, open_bundle
from fastseg_runtime.engines.frame_runner import FrameFit, FrameRunner

from fastseg import Network, open_network
from fastseg.data import open_dataset

TARGET, REFEREE = "cpu-fp32", "rknn"
MODULE, BUILDS = "the module", ("rk3588-fp16", "rk3588-int8")
RANGES = 16  # images for int8, as many as the referee takes


def spread(data: str, split: str, count: int) -> Iterator[tuple[Array, Array]]:
    """Yield images and labels spread over a split."""
    dataset = open_dataset(data, split)
    for n in range(count):
        sample = dataset[n * len(dataset) // count]
        yield sample.image_HW3, sample.label_HW


def simulate(
    referee_name: str, bundle: Bundle, target: str, images_HW3: list[Array], work: Path
) -> Verdict:
    """Return what a referee says of an artifact; what it ran is in work/outputs.

    Raises:
        SystemExit: it refuses or fails.
    """
    artifact, manifest = bundle.artifact(target), bundle.manifest
    (referee,) = select_referees(referee_name)
    bundle.extract(target, work / "files")
    (work / "frames").mkdir()
    mask_size = (manifest.input.height, manifest.input.width)
    for index, image_HW3 in enumerate(images_HW3):
        fit = FrameFit(image_HW3.shape[:2], manifest.input, mask_size, False)
        np.save(work / "frames" / f"{index}.npy", fit.to_input(image_HW3))
    (entry,) = (work / "files").rglob(Path(artifact.entry).name)
    verdict = judge(referee, artifact, entry.parent, work)
    print(f"{target}: {verdict.says}", file=sys.stderr)
    if verdict.outcome != "accepted":
        sys.exit(f"{referee_name} {verdict.outcome} {target}: {verdict.says}")
    return verdict


def score(
    network: Network, bundle: Bundle, scenes: list[tuple[Array, Array]], outputs: Path
) -> dict[str, tuple[float, float]]:
    """Return mIoU, and the share of pixels as the author's module, of each build and the module."""
    manifest, reference, count = bundle.manifest, pytorch_runner(network), len(network.info.classes)
    confusions_KK = {key: np.zeros((count, count)) for key in (MODULE, *BUILDS)}
    alike: dict[str, list[float]] = {key: [] for key in confusions_KK}
    artifact, module = bundle.artifact(TARGET), ModuleBackend(network)
    decoder = FrameRunner(module, artifact, manifest.input, manifest.output, count)
    for index, (image_HW3, label_HW) in enumerate(scenes):
        expected_HW = reference.infer_new(image_HW3)
        for key, confusion_KK in confusions_KK.items():
            logits_file = outputs / key / f"{index + RANGES}.npy"
            ids_HW = expected_HW if key == MODULE else decoder.class_map(np.load(logits_file))
            confusion_KK += confusion_matrix(ids_HW, label_HW, count)
            alike[key].append(agreement(ids_HW, expected_HW))
    return {
        key: (mean_iou(confusion_KK), float(np.mean(alike[key])))
        for key, confusion_KK in confusions_KK.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="that the bundle was made of")
    parser.add_argument("bundle", help="of the pictures' size: --size 480x360 for CamVid's")
    parser.add_argument("data", help="a labelled data set with training and test splits")
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    ranges = [image_HW3 for image_HW3, _ in spread(given.data, "train", RANGES)]
    scenes = list(spread(given.data, "test", given.images))
    with open_bundle(given.bundle) as bundle, tempfile.TemporaryDirectory() as name:
        size = bundle.manifest.input.width, bundle.manifest.input.height
        if odd := {image.shape[1::-1] for image, _ in scenes} - {size}:
            sys.exit(f"{given.bundle} takes {size}, pictures have {odd}: export it with --size")
        images_HW3 = [*ranges, *(image_HW3 for image_HW3, _ in scenes)]
        facts = simulate(REFEREE, bundle, TARGET, images_HW3, Path(name)).facts
        found = score(
            open_network(given.network, size=size), bundle, scenes, Path(name) / "outputs"
        )
    print(f"{given.network}, {given.images} test images\n")
    print("| | MB | pixels as the module, % | mIoU | drop, points |\n|---|--:|--:|--:|--:|")
    for key, (miou, share) in found.items():
        size, drop = facts.get(key, {}).get("mb", ""), 100 * (found[MODULE][0] - miou)
        print(f"| {key} | {size} | {100 * share:.2f} | {miou:.4f} | {drop:+.2f} |")


if __name__ == "__main__":
    main()
