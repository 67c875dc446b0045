"""Measure what post-training int8 loses on a test split, and print a table in Markdown.

    python tools/export_figures/measure_int8.py camvid:PATH runs/*/model.safetensors

Exports the int8 targets of each network with ranges from the training split, takes what the gate
let through, and scores it on the whole test split through the runtime. A loss of more than LIMIT
is what quantization-aware training would be for.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import verify
from fastseg_runtime import RealtimeSegmentation
from fastseg_targets.target import load_target
from rich.console import Console

TARGETS = ("cpu-int8", "android-int8", "jetson-int8")
LIMIT = 0.005  # of mIoU
log = Console(stderr=True, highlight=False)


def measure(checkpoint: str, data: str, images: int) -> list[dict[str, Any]]:
    """Return a row for each int8 target of a network."""
    source = NetworkSource(checkpoint)
    network = source.open()
    infer, classes = pytorch_runner(network).infer_new, len(network.info.classes)
    scenes = VerificationSet(data, images, infer, classes, split="test")
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "int8.fastseg"
        targets = tuple(map(load_target, TARGETS))
        plan = Plan(Recipe(source, Calibration(data)), targets, bundle, data)
        outcome = export_bundle(plan, lambda line: log.print(line, markup=False, soft_wrap=True))
        if outcome.failed:
            raise SystemExit(f"export failed: {outcome.failed}")
        return [
            {
                "network": network.name,
                "variant": network.info.variant,
                "target": artifact.target,
                "precision": artifact.precision,
                "float_layers": artifact.extra["float_layers"],
                **score(bundle, artifact.target, scenes),
            }
            for artifact in outcome.manifest.artifacts
        ]


def score(bundle: Path, target: str, scenes: VerificationSet) -> dict[str, Any]:
    """Return the scores of an artifact on all scenes."""
    log.print(f"{target}: {len(scenes)} test images")
    with RealtimeSegmentation(bundle, target=target) as session:
        return verify(session, scenes).to_table()


def line(row: dict[str, Any]) -> str:
    """Return a row in Markdown; mIoU and drops in percent."""
    low, high = row["miou_drop_ci95"]
    made = row["precision"] + (f", {n} layers float" if (n := len(row["float_layers"])) else "")
    return (
        f"| {row['network']} | {row['target']} | {made} | {100 * row['reference_miou']:.2f} "
        f"| {100 * row['miou']:.2f} | {100 * row['miou_drop']:+.2f} ({100 * low:+.2f} to "
        f"{100 * high:+.2f}) | {row['worst_class']} {100 * row['worst_class_drop']:+.2f} "
        f"| {100 * row['agreement']:.2f} |"
    )


def main() -> None:
    """Measure and print; exit code 3 where a network loses more than LIMIT."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with a test split")
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--images", type=int, default=10**9, help="of the test split; default: all")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows = []
    print("| network | target | made | PyTorch | mIoU | drop (95 %) | worst class | agreement |")
    print("|---|---|---|--:|--:|--:|---|--:|", flush=True)
    for checkpoint in arguments.checkpoints:
        for row in measure(checkpoint, arguments.data, arguments.images):
            rows.append(row)
            print(line(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), "utf-8")
    worst = max(row["miou_drop"] for row in rows)
    print(f"\nlargest drop: {100 * worst:+.2f} points, limit {100 * LIMIT:.1f}")
    sys.exit(3 if worst > LIMIT else 0)


if __name__ == "__main__":
    main()
