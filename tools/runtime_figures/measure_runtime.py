"""Measure what the device runtime costs beside its engine, and print a table.

    python tools/runtime_figures/measure_runtime.py                    about two minutes
    python tools/runtime_figures/measure_runtime.py --soak-frames 20000

An untrained FastSegNet takes the same time as a trained one. Ratios are medians of blocks that
alternate between the two sides, so that other load on the machine falls on both. On a machine that
is busy all the time, --cpu-time compares CPU seconds of one thread instead of wall time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from fastseg_runtime import RealtimeSegmentation, open_bundle
from fastseg_runtime.image import BilinearResizer

WIDTH, HEIGHT = 1024, 512
BLOCKS, BLOCK_FRAMES = 15, 5
COLD_START = """
from time import perf_counter
start = perf_counter()
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32")
session.infer(numpy.zeros(({height}, {width}, 3), "uint8"))
print(perf_counter() - start)
"""
IMPORT = """
from time import perf_counter
start = perf_counter()
import {what}
print(perf_counter() - start)
"""
STREAM = """
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32")
frame = numpy.random.default_rng(0).integers(0, 256, (720, 1280, 3), "uint8")
out = numpy.empty((720, 1280), "uint8")
for _ in range(100):
    session.infer(frame, out)
# VmHWM, not getrusage: that also counts what this process was before exec.
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 / 1e6)
"""


@dataclass(frozen=True)
class Clock:
    """How time is taken: seconds of the wall or of the CPU, and with how many threads."""

    now: Callable[[], float]
    threads: int | None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="nano", help="of FastSegNet (default: nano)")
    parser.add_argument("--soak-frames", type=int, default=2000, help="at 128x64 (default: 2000)")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    clock = Clock(process_time, threads=1) if options.cpu_time else Clock(perf_counter, None)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.variant, options.soak_frames, Path(folder), clock)
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def measure(variant: str, soak_frames: int, folder: Path, clock: Clock) -> dict[str, Any]:
    """Return every figure by name."""
    large = export(variant, (WIDTH, HEIGHT), ["cpu-fp32", "android-fp32"], folder / "large.fastseg")
    small = export("nano", (128, 64), ["cpu-fp32"], folder / "small.fastseg")
    values = {"path": str(large), "width": WIDTH, "height": HEIGHT}
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}",
        "network": f"{variant} {WIDTH}x{HEIGHT}",
        "resize 1280x720 to 1024x512, numpy, ms": resize_ms(clock, opencv=False),
        "resize 1280x720 to 1024x512, OpenCV, ms": resize_ms(clock, opencv=True),
        "import fastseg_runtime, s": fastest(IMPORT.format(what="fastseg_runtime")),
        "import fastseg_runtime.session, s": fastest(IMPORT.format(what="fastseg_runtime.session")),
        "import numpy, s": fastest(IMPORT.format(what="numpy")),
        "cold start to the first result, s": fastest(COLD_START.format(**values)),
        "peak RSS of a stream of 1280x720 frames, MB": fastest(STREAM.format(**values), runs=1),
    }
    with open_bundle(large) as bundle:
        made = [artifact.target for artifact in bundle.manifest.artifacts]
    for target in made:
        report[f"infer() / bare call, {target}"] = overhead(large, target, clock)
    return {**report, **soak(small, soak_frames)}


def export(variant: str, size: tuple[int, int], targets: list[str], path: Path) -> Path:
    """Export an untrained network with fastseg-export."""
    import torch
    from fastseg_runtime.palette import numbered_classes

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


def overhead(bundle: Path, target: str, clock: Clock) -> float:
    """Return the time of infer() over that of the engine's own call on the same input."""
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    out = np.empty((HEIGHT, WIDTH), np.uint8)
    with open_bundle(bundle) as files:
        content = files.read(files.artifact(target).entry)
    with RealtimeSegmentation(bundle, target=target, threads=clock.threads) as session:
        bare = BARE_CALLS[session.info.backend](content, frame[None], clock.threads)
        return paired_ratio(lambda: session.infer(frame, out), bare, clock)


def bare_onnxruntime(content: bytes, image_1HW3: Any, threads: int | None) -> Callable[[], Any]:
    """Return a call of InferenceSession.run, as ONNX Runtime's documentation has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: its own choice
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image_1HW3})


def bare_litert(content: bytes, image_1HW3: Any, threads: int | None) -> Callable[[], Any]:
    """Return set_tensor, invoke, get_tensor, as LiteRT's documentation has it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_content=content, num_threads=threads or min(4, os.cpu_count() or 1)
    )
    interpreter.allocate_tensors()
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call() -> Any:
        interpreter.set_tensor(image["index"], image_1HW3)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return call


BARE_CALLS = {"onnxruntime": bare_onnxruntime, "litert": bare_litert}


def paired_ratio(ours: Callable[[], Any], bare: Callable[[], Any], clock: Clock) -> float:
    """Return the median over blocks of our time divided by the bare call's."""
    ratios = [block_s(ours, clock) / block_s(bare, clock) for _ in range(BLOCKS)]
    return round(float(np.median(ratios[1:])), 4)  # the first block warms up


def block_s(call: Callable[[], Any], clock: Clock) -> float:
    """Return the median seconds of some calls; the first one lets the other side's threads rest."""
    call()
    times = []
    for _ in range(BLOCK_FRAMES):
        start = clock.now()
        call()
        times.append(clock.now() - start)
    return float(np.median(times))


def resize_ms(clock: Clock, opencv: bool) -> float:
    """Return the median time of bringing a camera's frame to the input's size, one thread."""
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    if opencv:
        import cv2

        cv2.setNumThreads(1)
        call: Callable[[], Any] = lambda: cv2.resize(frame, (WIDTH, HEIGHT), dst=out)  # noqa: E731
    else:
        resizer = BilinearResizer((720, 1280), (HEIGHT, WIDTH))
        call = lambda: resizer(frame, out)  # noqa: E731
    return round(1e3 * float(np.median([block_s(call, clock) for _ in range(5)])), 2)


def fastest(code: str, runs: int = 5) -> float:
    """Return the smallest number that a program prints in some runs, each a fresh interpreter."""
    command = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for _ in range(runs)
    ]
    return round(min(float(output) for output in outputs), 3)


def soak(bundle: Path, frames: int) -> dict[str, float]:
    """Run many frames of a small size; compare the second half with the first."""
    frame = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    out = np.empty((64, 128), np.uint8)
    times_ms = np.empty(frames)
    rss_mb = []
    with RealtimeSegmentation(bundle) as session:
        for index in range(frames):
            start = perf_counter()
            session.infer(frame, out)
            times_ms[index] = 1e3 * (perf_counter() - start)
            if index in (frames // 10, frames - 1):  # after everything was allocated once
                rss_mb.append(resident_mb())
    halves = [float(np.percentile(half, 99)) for half in np.split(times_ms, 2)]
    return {
        "soak, frames": frames,
        "soak, RSS at the end / after a tenth": round(rss_mb[1] / rss_mb[0], 4),
        "soak, p99 of first half, ms": round(halves[0], 3),
        "soak, p99 of second half, ms": round(halves[1], 3),
    }


def resident_mb() -> float:
    """Return this process's resident memory (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def as_text(report: dict[str, Any]) -> str:
    """Return the report as two columns."""
    width = max(len(name) for name in report)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in report.items())


if __name__ == "__main__":
    main()
