"""Measure what exporting costs and loses, and print tables in Markdown.

    python tools/export_figures/measure_exports.py runs/camvid-small/model.safetensors camvid:PATH

Exports the ONNX targets (time and memory), scores each artifact on the whole test split through
the runtime, and measures which share of the graph's time the class map takes.
"""

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import Verification, verify
from fastseg_exporters.onnx.to_onnx import float_graph, save, take_bytes
from fastseg_runtime import RealtimeSegmentation
from fastseg_targets.target import select_targets
from rich.console import Console

from fastseg import DeployGraph, FastSegNet

TARGETS = ("cpu-fp32", "cpu-int8", "cpu-int8-weights")
TAIL_SIZE, TAIL_CLASSES, TAIL_RUNS = (1024, 512), 19, 30
log = Console(stderr=True, highlight=False)


def export(source: NetworkSource, data: str, bundle: Path) -> str:
    """Export the targets, verified on 20 images, and return a line on what it took."""
    plan = Plan(Recipe(source, Calibration(data)), tuple(select_targets(TARGETS)), bundle, data)
    start = time.perf_counter()
    outcome = export_bundle(plan, lambda line: log.print(line, markup=False, soft_wrap=True))
    seconds = time.perf_counter() - start
    if outcome.failed:
        raise SystemExit(f"export failed: {outcome.failed}")
    peaks = [a.extra["export"]["peak_memory_mb"] for a in outcome.manifest.artifacts]
    return (
        f"Export of {', '.join(TARGETS)}, each verified on 20 images: {seconds:.0f} s, "
        f"at most {max(peaks)} MB."
    )


def score(source: NetworkSource, data: str, bundle: Path) -> list[tuple[str, Verification]]:
    """Run every artifact over the whole test split."""
    network = source.open()
    infer = pytorch_runner(network).infer_new
    scenes = VerificationSet(data, 10**9, infer, len(network.info.classes), split="test")
    rows = []
    for target in TARGETS:
        log.print(f"{target}: {len(scenes)} test images")
        with RealtimeSegmentation(bundle, target=target) as session:
            rows.append((target, verify(session, scenes)))
    return rows


def score_table(rows: list[tuple[str, Verification]]) -> str:
    """Return the scores in Markdown, in percent."""
    lines = [
        "| target | mIoU | PyTorch | drop (95 %) | worst class | agreement |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for target, found in rows:
        low, high = found.miou_drop_ci95 or (0.0, 0.0)
        lines.append(
            f"| {target} | {100 * (found.miou or 0):.2f} | {100 * (found.reference_miou or 0):.2f} "
            f"| {100 * (found.miou_drop or 0):+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) "
            f"| {found.worst_class} {100 * (found.worst_class_drop or 0):+.2f} "
            f"| {100 * found.agreement:.2f} |"
        )
    return "\n".join(lines)


def tail_share(variant: str, folder: Path) -> float:
    """Return the fraction of the graph's kernel time that upsampling and argmax take."""
    graph = DeployGraph(FastSegNet(TAIL_CLASSES, variant), *TAIL_SIZE).eval()
    path = folder / f"{variant}.onnx"
    save(take_bytes(float_graph(graph), graph), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / variant)
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    image = torch.zeros(1, TAIL_SIZE[1], TAIL_SIZE[0], 3, dtype=torch.uint8).numpy()
    for _ in range(TAIL_RUNS):
        session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    kernels = [e for e in events if e["name"].endswith("_kernel_time")]
    tail = sum(e["dur"] for e in kernels if e["name"].startswith("/class_map"))
    return float(tail / sum(e["dur"] for e in kernels))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="a checkpoint")
    parser.add_argument("data", help="a data set with a test split")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    arguments = parser.parse_args()
    source = NetworkSource(arguments.network)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(export(source, arguments.data, folder / "m.fastseg"), "\n")
        rows = score(source, arguments.data, folder / "m.fastseg")
        print(score_table(rows), "\n")
        for variant in ("nano", "small", "base"):
            share = tail_share(variant, folder)
            print(
                f"Class map in {variant} at 1024x512, 19 classes: {share:.0%} of the graph's time"
            )
    if arguments.json:
        tables = {target: dataclasses.asdict(found) for target, found in rows}
        arguments.json.write_text(json.dumps(tables, indent=1), "utf-8")


if __name__ == "__main__":
    main()
