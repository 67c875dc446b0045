"""infer() against the engine's own call, and the resizing that it does before.

Ratios are medians of blocks that alternate between the two sides, so that other load on the
machine falls on both.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime import RealtimeSegmentation, open_bundle
from fastseg_runtime.arrays.image import BilinearResizer
from fastseg_runtime.arrays.metrics import Array

BLOCKS, BLOCK_FRAMES = 15, 5


@dataclass(frozen=True)
class Clock:
    """How time is taken: seconds of the wall or of the CPU, and with how many threads."""

    now: Callable[[], float]
    threads: int | None


def overhead(bundle: Path, target: str, clock: Clock) -> float:
    """Return infer()'s time over the engine's own call's on one input, the median of blocks."""
    with open_bundle(bundle) as files:
        content = files.read(files.artifact(target).entry)
    with RealtimeSegmentation(bundle, target=target, threads=clock.threads) as session:
        frame, out = frame_and_out(session)
        bare = BARE_CALLS[session.info.backend](content, frame[None], clock.threads)
        ours = partial(session.infer, frame, out)
        ratios = [block_s(ours, clock) / block_s(bare, clock) for _ in range(BLOCKS)]
        return round(float(np.median(ratios[1:])), 4)  # the first block warms up


def frame_and_out(session: RealtimeSegmentation) -> tuple[Array, Array]:
    """Return a noise frame of the input's size and an array for its class ids."""
    size = (session.input.height, session.input.width)
    frame_HW3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return frame_HW3, np.empty(size, np.uint8)


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
    """Return the median time of bringing 1280x720 to 1024x512 in one thread."""
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    out = np.empty((512, 1024, 3), np.uint8)
    call: Callable[[], Any] = partial(BilinearResizer((720, 1280), (512, 1024)), frame, out)
    if opencv:
        import cv2

        cv2.setNumThreads(1)
        call = partial(cv2.resize, frame, (1024, 512), dst=out)
    return round(1e3 * float(np.median([block_s(call, clock) for _ in range(5)])), 2)
