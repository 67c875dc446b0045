"""Measure what post-training int8 loses on a test split, and print a table in Markdown.

    python tools/export_figures/measure_int8.py camvid:PATH runs/*/model.safetensors

Exports the int8 targets of each network, or those that are named, with ranges from the training
split, takes what the gate let through, and scores it on the whole test split through the runtime.
A loss of more than LIMIT is what quantization-aware training would be for.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastseg_exporters.gate.verify import Verification
from scoring import ALL_IMAGES, export, open_scenes, score, show_scores

from fastseg import open_network

TARGETS = ["cpu-int8", "android-int8", "jetson-int8"]
LIMIT = 0.005  # of mIoU
Row = tuple[dict[str, Any], Verification]


def measure(checkpoint: str, data: str, images: int, targets: list[str]) -> Iterator[Row]:
    """Yield what each target of a network is, and its scores."""
    network = open_network(checkpoint)
    scenes = open_scenes(network, data, images)
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "int8.fastseg"
        outcome = export(checkpoint, targets, bundle, data)
        if outcome.failed:
            raise SystemExit(f"export failed: {outcome.failed}")
        for artifact in outcome.manifest.artifacts:
            made = {
                "network": network.name,
                "variant": network.info.variant,
                "target": artifact.target,
                "precision": artifact.precision,
                "float_layers": artifact.extra["float_layers"],
            }
            yield made, score(bundle, artifact.target, scenes)


def line(row: dict[str, Any], found: Verification) -> str:
    """Return a row in Markdown; mIoU and drops in percent."""
    made = row["precision"] + (f", {n} layers float" if (n := len(row["float_layers"])) else "")
    reference, miou, drop, agreement = show_scores(found)
    worst = f"{found.worst_class} {100 * (found.worst_class_drop or 0):+.2f}"
    cells = (row["network"], row["target"], made, reference, miou, drop, worst, agreement)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print; exit code 3 where a network loses more than LIMIT."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with a test split")
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--target", action="append", default=[], help="others than int8")
    parser.add_argument("--images", type=int, default=ALL_IMAGES, help="of the test split [all]")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    rows = []
    print("| network | target | made | PyTorch | mIoU | drop (95 %) | worst class | agreement |")
    print("|---|---|---|--:|--:|--:|---|--:|", flush=True)
    for checkpoint in given.checkpoints:
        for row, found in measure(checkpoint, given.data, given.images, given.target or TARGETS):
            rows.append(row | dataclasses.asdict(found))
            print(line(row, found), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), "utf-8")
    worst = max(row["miou_drop"] for row in rows)
    print(f"\nlargest drop: {100 * worst:+.2f} points, limit {100 * LIMIT:.1f}")
    sys.exit(3 if worst > LIMIT else 0)


if __name__ == "__main__":
    main()
