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
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from engine_overhead import Clock, frame_and_out, overhead, resize_ms
from fastseg_runtime import RealtimeSegmentation, open_bundle
from fastseg_runtime.arrays.stats import quantiles
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
    if options.soak_frames < 10:
        parser.error("--soak-frames: 10 or more, since memory is looked at ten times")
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
        report[f"import {what}, s"] = fastest(IMPORT.format(what=what, clock=clock_name))
    report["cold start to the first result, s"] = cold_start_s(large, clock_name)
    all_scenes = "the same with all scenes of the self-test, s"
    report[all_scenes] = cold_start_s(large, clock_name, first=True)
    for engines in (1, 2):
        name = f"peak RSS of a stream of 1280x720 frames, {engines} engines, MB"
        report[name] = fastest(STREAM_MEMORY.format(path=str(large), engines=engines), runs=1)
    report |= video_figures(large, folder, options.video)
    return report | soak(small, options.soak_frames, clock.now)


def export(variant: str, size: tuple[int, int], targets: list[str], path: Path) -> Path:
    """Export an untrained network with fastseg-export."""
    import torch
    from fastseg_runtime.bundle.manifest import numbered_classes

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


# Programs that run in an interpreter of their own: imports, the cold start, their memory.
COLD_START = """
from time import {clock}
start = {clock}()
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32")
session.infer(numpy.zeros((session.input.height, session.input.width, 3), "uint8"))
print({clock}() - start)
"""
IMPORT = """
from time import {clock}
start = {clock}()
import {what}
print({clock}() - start)
"""
# VmHWM, not getrusage: that also counts what this process was before exec.
STREAM_MEMORY = """
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32", engines={engines})
camera = (numpy.full((720, 1280, 3), index % 256, "uint8") for index in range(100))
for result in session.stream(camera, draw=session.overlay):
    pass
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 / 1e6)
"""


def cold_start_s(bundle: Path, clock: str, first: bool = False) -> float:
    """Return the seconds from the start of the imports to the first class map, self-test included.

    The files are in the system's cache, as they are at a program's second start.

    Args:
        bundle: with a target cpu-fp32.
        clock: of the module time.
        first: as where this engine never opened it: all scenes of the self-test are run.
    """
    code = COLD_START.format(path=str(bundle), clock=clock)
    with tempfile.TemporaryDirectory() as cache:
        if first:  # a folder that cannot be made remembers nothing
            cache = f"{os.devnull}/nowhere"
        return fastest(code, environment={**os.environ, "FASTSEG_CACHE": cache})


def fastest(code: str, runs: int = 5, environment: dict[str, str] | None = None) -> float:
    """Return the smallest number that a program prints in some runs."""
    command = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(runs)
    ]
    return round(min(float(output) for output in outputs), 3)


def soak(bundle: Path, frames: int, now: Callable[[], float]) -> dict[str, float]:
    """Run many frames of a bundle of small size and look whether memory or time grow."""
    times_ms, rss_mb = np.empty(frames), []
    with RealtimeSegmentation(bundle) as session:
        frame, out = frame_and_out(session)
        for index in range(frames):
            start = now()
            session.infer(frame, out)
            times_ms[index] = 1e3 * (now() - start)
            if (index + 1) % (frames // 10) == 0:  # the first tenth allocates everything once
                rss_mb.append(resident_mb())
    halves = [float(quantiles(half, [0.99])[0]) for half in np.array_split(times_ms, 2)]
    return {
        "soak, frames": frames,
        "soak, largest RSS / RSS after a tenth": round(max(rss_mb) / rss_mb[0], 4),
        "soak, p99 of first half, ms": round(halves[0], 3),
        "soak, p99 of second half, ms": round(halves[1], 3),
    }


def bytes_within_a_frame(bundle: Path, target: str) -> int:
    """Return the most that memory rises within one infer() with `out`, by tracemalloc.

    numpy reports its arrays to tracemalloc: what is far below the size of a class map is Python's
    numbers, tuples and views.
    """
    with RealtimeSegmentation(bundle, target=target) as session:
        frame, out = frame_and_out(session)
        for _ in range(3):
            session.infer(frame, out)
        tracemalloc.start()
        most = 0
        for _ in range(20):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            session.infer(frame, out)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    return most


def resident_mb() -> float:
    """Return this process's resident memory (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
