"""Measure what the device runtime costs beside its engine, and print a table.

    python tools/runtime_figures/measure_runtime.py                    about two minutes
    python tools/runtime_figures/measure_runtime.py --soak-frames 20000

An untrained FastSegNet takes the same time as a trained one. On a machine that is busy all the
time, --cpu-time compares CPU seconds of one thread instead of wall time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from engine_overhead import Clock, overhead, resize_ms
from fastseg_runtime import open_bundle
from fresh_process import cold_start_s, import_s, stream_memory_mb
from long_run import bytes_within_a_frame, soak
from video_speed import video_figures

SIZE, SMALL_SIZE = (1024, 512), (128, 64)
CLOCKS = {"wall": Clock(perf_counter, None), "cpu": Clock(process_time, threads=1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="nano", help="of FastSegNet (default: nano)")
    parser.add_argument("--soak-frames", type=int, default=2000, help="at 128x64 (default: 2000)")
    parser.add_argument("--video", type=Path, help="to stream (default: a generated one)")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return every figure by name."""
    timing = "cpu" if options.cpu_time else "wall"
    clock = CLOCKS[timing]
    clock_name = clock.now.__name__  # of the module time
    targets = ["cpu-fp32", "android-fp32"]
    large = export(options.variant, SIZE, targets, folder / "large.fastseg")
    small = export("nano", SMALL_SIZE, ["cpu-fp32"], folder / "small.fastseg")
    with open_bundle(large) as bundle:
        made = [artifact.target for artifact in bundle.manifest.artifacts]
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}",
        "network": f"{options.variant} {SIZE[0]}x{SIZE[1]}",
        "seconds are": f"{timing} time",
    }
    for target in made:
        report[f"infer() / bare call, {target}"] = overhead(large, target, clock)
        report[f"bytes within a frame, {target}"] = bytes_within_a_frame(large, target)
    report["resize 1280x720 to 1024x512, numpy, ms"] = resize_ms(clock, opencv=False)
    report["resize 1280x720 to 1024x512, OpenCV, ms"] = resize_ms(clock, opencv=True)
    for what in ("numpy", "fastseg_runtime", "fastseg_runtime.frames.session"):
        report[f"import {what}, s"] = import_s(what, clock_name)
    report["cold start to the first result, s"] = cold_start_s(large, clock_name)
    all_scenes = "the same with all scenes of the self-test, s"
    report[all_scenes] = cold_start_s(large, clock_name, first=True)
    for engines in (1, 2):
        name = f"peak RSS of a stream of 1280x720 frames, {engines} engines, MB"
        report[name] = stream_memory_mb(large, engines)
    report |= video_figures(large, folder, options.video)
    return report | soak(small, options.soak_frames, clock.now)


def export(variant: str, size: tuple[int, int], targets: list[str], path: Path) -> Path:
    """Export an untrained network with fastseg-export."""
    import torch
    from fastseg_runtime.bundle.palette import numbered_classes

    from fastseg import CheckpointInfo, FastSegNet, save_checkpoint

    torch.manual_seed(0)
    checkpoint = path.with_suffix(".safetensors")
    info = CheckpointInfo(variant, numbered_classes(11), width=size[0], height=size[1])
    save_checkpoint(checkpoint, FastSegNet(11, variant).eval(), info)
    command = [str(Path(sys.executable).with_name("fastseg-export")), str(checkpoint)]
    command += [f"--target={target}" for target in targets]
    # Exit code 1: a target failed, as where its converter is absent; the others are there.
    subprocess.run([*command, "-o", str(path), "--verify-images", "1"], stdout=sys.stderr)
    return path


def as_text(report: dict[str, Any]) -> str:
    """Return the report as two columns."""
    width = max(len(name) for name in report)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in report.items())


if __name__ == "__main__":
    main()
