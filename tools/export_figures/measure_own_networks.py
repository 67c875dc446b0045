"""Hold artifacts of any networks against their own modules, and print a table in Markdown.

    python tools/export_figures/measure_own_networks.py nets:unet nets:fcn --classes classes.txt \
        --target cpu-fp32 --target android-int8 --size 128x64

Nothing of the comparison is the exporters': frames are normalised, the module called, its logits
resized and the ids taken by the few lines of ids_of() below. Pixels count whose two best logits lie
further apart than rounding at the artifact's precision. A network that is refused has its one line.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.workshop import proving_backend
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.metrics import Array
from fastseg_targets.target import select_targets

from fastseg import CheckpointError
from fastseg.data import open_dataset
from fastseg.data.class_list import read_classes
from fastseg.normalization import parse_normalization

# Of the largest logit: below it the order of two classes is a matter of rounding.
ROUNDING = {"fp32": 1e-4, "fp16": 1e-2}


def frames(width: int, height: int) -> list[Array]:
    """Return street scenes, noise and plain pictures, uint8 (H, W, 3)."""
    scenes = open_dataset(f"synthetic:{width}x{height}", "val")
    noise_HW3 = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    plain = [np.full((height, width, 3), level, np.uint8) for level in (0, 128, 255)]
    return [*(np.ascontiguousarray(scenes[i].image_HW3) for i in range(3)), noise_HW3, *plain]


def ids_of(source: NetworkSource, image_HW3: Array, rounding: float) -> tuple[Array, Array]:
    """Return the module's own class map of a frame, and which of its pixels are clear."""
    own = source.normalization
    mean, std = (own.mean, own.std) if own else ((128.0,) * 3, (64.0,) * 3)
    scale = own.scale / 255 if own else 1
    pixels_HW3 = torch.from_numpy(image_HW3).float()
    if own and own.color == "bgr":
        pixels_HW3 = pixels_HW3.flip(-1)
    x_13HW = ((pixels_HW3 * scale - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        result = source.open().model(x_13HW)
    while not isinstance(result, torch.Tensor):
        keys = list(result) if isinstance(result, dict) else range(len(result))
        key = source.output_name or next(k for k in ("out", "logits", *keys) if k in keys)
        result = result[key if isinstance(result, dict) else int(key)]
    size = image_HW3.shape[:2]
    logits_KHW = F.interpolate(result, size=size, mode="bilinear", align_corners=False)[0]
    limit = rounding * float(logits_KHW.abs().max())
    if len(logits_KHW) == 1:
        threshold = torch.tensor(source.threshold).logit()
        over_HW = logits_KHW[0] - threshold
        return (over_HW > 0).numpy(), (over_HW.abs() > limit).numpy()
    best_2HW = logits_KHW.topk(2, dim=0).values
    return logits_KHW.argmax(0).numpy(), (best_2HW[0] - best_2HW[1] > limit).numpy()


def measure(source: NetworkSource, targets: list[str], images: list[Array]) -> list[list[str]]:
    """Export, run every artifact, and return rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "own.fastseg"
        recipe = Recipe(source, Calibration(None, 8))
        plan = Plan(recipe, tuple(select_targets(targets)), out, None, 4)
        try:
            outcome = export_bundle(plan)
        except (CheckpointError, ValueError) as error:
            return [[source.spec, "all", "refused", str(error)]]
        rows = [[source.spec, name, "refused", why] for name, why in outcome.failed.items()]
        for artifact in outcome.manifest.artifacts:
            rounding = ROUNDING.get(artifact.precision, 0.0)
            backend = proving_backend(artifact)
            with RealtimeSegmentation(out, backend, target=artifact.target) as session:
                same, seen = [], set()
                for image_HW3 in images:
                    ids_HW, clear_HW = ids_of(source, image_HW3, rounding)
                    seen |= set(np.unique(ids_HW).tolist())
                    hits_HW = (session.infer(image_HW3) == ids_HW)[clear_HW]
                    same.append(float(hits_HW.mean()) if hits_HW.size else 1.0)
            shares = f"{np.mean(same):.2%}, worst frame {min(same):.2%}; {len(seen)} classes seen"
            rows.append([source.spec, artifact.target, artifact.precision, shares])
    return rows


def main() -> None:
    """Print a row for each network and target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="+", help="package.module:factory")
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--size", default="128x64", help="WxH")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--normalization")
    parser.add_argument("--color")
    parser.add_argument("--output-name", default="")
    parser.add_argument("--threshold", type=float, default=0.5)
    given = parser.parse_args()
    size = parse_size(given.size)
    own = parse_normalization(given.normalization, given.color)
    classes = read_classes(given.classes)[0]
    print("| network | target | made | ids as the module's own |\n|---|---|---|---|", flush=True)
    for spec in given.networks:
        source = NetworkSource(spec, classes, None, size, own, given.output_name, given.threshold)
        for row in measure(source, given.target or ["cpu-fp32"], frames(*size)):
            lines = " ".join(row[-1].split())
            print(f"| {' | '.join(row[:-1])} | {lines[:240]} |", flush=True)


if __name__ == "__main__":
    main()
