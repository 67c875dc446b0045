"""Let NVIDIA's own parser and builder judge the graphs for TensorRT of every variant; a table.

    make referees
    python tools/export_figures/measure_tensorrt_rtx.py nano small base large lite

The networks are untrained, since nothing that is counted depends on weights. The last rows have the
class map alone, upsampling included, as ArgMax and as comparisons: the memory for maps, as the
builder reports it, is what passes between kernels.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import select_referees
from fastseg_exporters.tensorrt import to_tensorrt
from fastseg_exporters.tensorrt.to_tensorrt import (
    ENTRY,
    graphs_for,
    quantize,
    tensorrt_onnx,
    to_half,
)
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.engines.tensorrt.choice import TYPED
from onnx.utils import Extractor

from fastseg import DeployGraph, FastSegNet

CLASSES = 11  # CamVid's
HEADINGS = (
    "graph", "layers", "float32 not asked for", "int64 elementwise", "maps, kB", "built for",
    "verdict",
)  # fmt: skip


def graphs(variant: str, width: int, height: int) -> dict[str, dict[str, onnx.ModelProto]]:
    """Return the files of each jetson-* target, by its precision."""
    torch.manual_seed(0)
    graph = DeployGraph(FastSegNet(CLASSES, variant), width, height).eval()
    plain = tensorrt_onnx(graph)
    noise_1HW3 = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    int8 = quantize(plain, [noise_1HW3], graph.mean, graph.std)
    return {"fp16": graphs_for(plain, "fp16"), "int8": graphs_for(int8, "int8")}


def class_maps(width: int, height: int) -> dict[str, onnx.ModelProto]:
    """Return the class map alone, from logits at 1/8, in half: with ArgMax and without."""
    torch.manual_seed(0)
    plain = tensorrt_onnx(DeployGraph(FastSegNet(CLASSES, "nano"), width, height).eval())
    upsample = [node for node in plain.graph.node if node.op_type == "Resize"][-1]
    inferred = onnx.shape_inference.infer_shapes(plain)
    alone = Extractor(inferred).extract_model([upsample.input[0]], [plain.graph.output[0].name])
    with patch.object(to_tensorrt, "MOST_COMPARED", 0):
        argmax = to_half(alone)
    return {"ArgMax": argmax, "comparisons": to_half(alone)}


def rows(variant: str, precision: str, files: dict[str, onnx.ModelProto]) -> list[tuple[str, ...]]:
    """Return a row for each file."""
    (referee,) = select_referees("tensorrt-rtx")
    artifact = Artifact(f"jetson-{precision}", "onnx", precision, ENTRY, ())
    with tempfile.TemporaryDirectory() as name:
        folder, work = Path(name) / "files", Path(name) / "work"
        folder.mkdir()
        work.mkdir()
        for file, model in files.items():
            onnx.save(model, folder / file)
        verdict = judge(referee, artifact, folder, work)
    if not verdict.facts:
        raise SystemExit(f"{variant} {artifact.target}: {verdict.says}")
    return [
        _row(f"{variant} {artifact.target} {file}", file, facts, verdict.outcome)
        for file, facts in verdict.facts.items()
    ]


def _row(name: str, file: str, facts: dict[str, Any], outcome: str) -> tuple[str, ...]:
    unasked = facts.get("float32_unasked", {})
    told = ", ".join(f"{count} {kind.lower()}" for kind, count in unasked.items()) or "0"
    built = [capability for capability, size in facts["engine_bytes"].items() if size]
    kinds: Counter[str] = Counter(facts.get("kinds", {}))
    return (
        name,
        str(facts.get("layers", "-")),
        told if TYPED in file else "-",
        str(kinds["ELEMENTWISE INT64"]),
        f"{(facts['maps_bytes'] or 0) / 1e3:.0f}",
        f"{len(built)} of {len(facts['engine_bytes'])}",
        outcome,
    )


def main() -> None:
    """Measure and print, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--size", default="480x360", help="WxH")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---|--:|---|--:|--:|---|---|")
    for variant in arguments.variants:
        for precision, files in graphs(variant, width, height).items():
            for row in rows(variant, precision, files):
                print("| " + " | ".join(row) + " |", flush=True)
    for name, model in class_maps(width, height).items():
        for row in rows(f"class map alone, {name},", "fp16", {ENTRY: model}):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
