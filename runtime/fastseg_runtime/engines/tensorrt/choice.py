"""Which graphs of an artifact this TensorRT can take, and which of their engines is fastest here.

Int8 makes grouped convolutions, depthwise ones above all, slower on some GPUs and releases
(NVIDIA/TensorRT#4529: taken apart group by group), is not built on some (#4060), and is faster on
others, where one fuses with the convolution behind it (#3237). So an int8 artifact brings a second
graph that leaves them in float, and the device that builds both keeps the faster.
"""

import logging
import time
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.engines.tensorrt.builder import BuiltEngine
from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

log = logging.getLogger("fastseg_runtime")
# In names of files: "model.onnx" is the entry, "model-float-depthwise-typed.onnx" both of these.
TYPED = "-typed"  # for releases without precision flags
FLOAT_DEPTHWISE = "-float-depthwise"
# In turns, so that a clock that rises or a board that warms up counts for all alike.
TURNS, FRAMES_A_TURN, UNTIMED_FRAMES = 3, 30, 20


def file_name(entry: str, *marks: str) -> str:
    """Return what the graph beside an entry is called that differs from it by some marks."""
    path = PurePosixPath(entry)
    return str(path.with_name("".join((path.stem, *marks, path.suffix))))


def graphs_of(artifact: Artifact, strongly_typed: bool) -> Tuple[str, ...]:
    """Return the files of an artifact that this release may build, the plainest first."""
    there = {file.path for file in artifact.files}
    marks = (TYPED,) if strongly_typed and file_name(artifact.entry, TYPED) in there else ()
    rung = file_name(artifact.entry, FLOAT_DEPTHWISE, *marks)
    return (file_name(artifact.entry, *marks), *((rung,) if rung in there else ()))


def build_fastest(
    graphs: Mapping[str, bytes],
    build: Callable[[bytes], BuiltEngine],
    time_frames: Callable[[Mapping[str, bytes]], Mapping[str, float]],
) -> BuiltEngine:
    """Build the graphs of an artifact and return the engine that is fastest.

    Of several its record tells which "file" it is of, and what became of each of the "rivals".
    A graph that is not built, or an engine that does not run, has lost.

    Args:
        graphs: ONNX models by file.
        build: makes an engine of one.
        time_frames: gives the milliseconds of a frame by file, for serialized engines by file.

    Raises:
        TensorRTError: none was built; why not the first.
    """
    built: Dict[str, BuiltEngine] = {}
    failed: Dict[str, TensorRTError] = {}
    for name, onnx in graphs.items():
        try:
            built[name] = build(onnx)
        except TensorRTError as error:
            failed[name] = error
    if not built:
        raise next(iter(failed.values()))
    if len(graphs) == 1:
        return next(iter(built.values()))
    times_ms = time_frames({name: engine.plan for name, engine in built.items()})
    rivals = {
        name: {"error": str(failed[name]).splitlines()[0]}
        if name in failed
        else {"build_s": built[name].record["seconds"], "latency_ms": times_ms.get(name)}
        for name in graphs
    }
    fastest = min(times_ms or built, key=lambda name: times_ms.get(name, 0.0))
    told = "; ".join(f"{name} {_say(rival)}" for name, rival in rivals.items())
    log.info("keeping the engine of %s: %s", fastest, told)
    record = {**built[fastest].record, "file": fastest, "rivals": rivals}
    return replace(built[fastest], record=record)


def _say(rival: Mapping[str, Any]) -> str:
    latency_ms = rival.get("latency_ms")
    return f"takes {latency_ms} ms" if latency_ms else str(rival.get("error", "does not run"))


def time_in_turns(
    trt: Any, cuda: Cuda, plans: Mapping[str, bytes], device: int
) -> Dict[str, float]:
    """Return the median time of a frame by the name of each engine that runs, in milliseconds.

    One is loaded at a time: on a small board two may not fit.
    """
    times_s: Dict[str, List[float]] = {name: [] for name in plans}
    for name in [*plans] * TURNS:
        try:
            if name in times_s:
                times_s[name] += _time_frames(TensorRTRunner(trt, cuda, plans[name], device))
        except (TensorRTError, CudaError) as error:
            log.warning("the engine of %s does not run: %s", name, error)
            del times_s[name]
    return {name: round(1e3 * float(np.median(seconds)), 3) for name, seconds in times_s.items()}


def _time_frames(runner: TensorRTRunner) -> List[float]:
    image_1HW3, times_s = np.zeros(runner.input.host.shape, np.uint8), []
    try:
        for _ in range(UNTIMED_FRAMES + FRAMES_A_TURN):
            start = time.perf_counter()
            runner.infer(image_1HW3)
            times_s.append(time.perf_counter() - start)
    finally:
        runner.close()
    return times_s[UNTIMED_FRAMES:]
