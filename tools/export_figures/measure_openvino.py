"""Time OpenVINO against ONNX Runtime in one run, score both, and print tables in Markdown.

    python tools/export_figures/measure_openvino.py camvid:PATH nano.fastseg small.fastseg

Each bundle has the targets TARGETS, of one network at one size, for fastseg-export. All run in turn
in this process, through the runtime's backends, pictures of a street in, ids out; the times are of
the process's CPU, which counts nothing of other processes but what they take from the caches. On
a CPU without bf16 units intel-bf16 is float32: the first line says what the CPU has.
"""

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from compare_models.timing import Floats, ratio_to
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.selection import this_processor
from scoring import open_scenes, pictures, score, show_scores

from fastseg import open_network

TARGETS = ("cpu-fp32", "cpu-int8", "intel-bf16", "intel-int8")  # the first is what others are to
STREETS = 4


def times_in_turn(sessions: list[RealtimeSegmentation], images: list[Array], rounds: int) -> Floats:
    """Return the CPU ms of an image, by session and round; every second round runs backwards."""
    times_ms = np.empty((len(sessions), rounds))
    for turn in range(rounds):
        for index in range(len(sessions))[:: 1 - 2 * (turn % 2)]:
            sessions[index].infer(images[0])  # its weights are in the cache again
            start = time.process_time()
            for image_HW3 in images:
                sessions[index].infer(image_HW3)
            times_ms[index, turn] = 1e3 * (time.process_time() - start) / len(images)
    return times_ms


def time_bundle(path: Path, data: str, threads: int, rounds: int) -> list[str]:
    """Return a row in Markdown for each target."""
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(RealtimeSegmentation(path, target=target, threads=threads))
            for target in TARGETS
        ]
        size = (sessions[0].input.width, sessions[0].input.height)
        images = [image[0] for image in pictures(data, "test", STREETS, size)]
        times_ms = times_in_turn(sessions, images, rounds)
        rows = []
        for session, own_ms in zip(sessions, times_ms, strict=True):
            ratio = ratio_to(own_ms, times_ms[0])  # of times: less is faster
            cells = (
                f"{path.stem} {size[0]}x{size[1]}",
                threads,
                f"{session.info.target} ({ENGINES[session.info.backend].title})",
                f"{np.median(own_ms):.1f}",
                ratio,
                f"{ratio.fastest:.2f}",
            )
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with a test split")
    parser.add_argument(
        "bundles", type=Path, nargs="+", help="named as shipped weights, NAME.fastseg"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=0, help="to score of the test split [none]")
    given = parser.parse_args()
    wanted = {flag for flags in ENGINES["openvino"].wants.values() for flag in flags}
    print(f"the CPU has {sorted(wanted & this_processor().instructions)}\n")
    print("| network | threads | target | CPU ms | of cpu-fp32's time (95 %) | of the fastest |")
    print("|---|--:|---|--:|--:|--:|", flush=True)
    for threads in (1, 2):
        for path in given.bundles:
            print("\n".join(time_bundle(path, given.data, threads, given.rounds)), flush=True)
    if not given.images:
        return
    print("\n| network | target | PyTorch | mIoU | drop (95 %) | agreement |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for path in given.bundles:
        with RealtimeSegmentation(path, target=TARGETS[0]) as session:
            size = (session.input.width, session.input.height)
        scenes = open_scenes(open_network(path.stem, size=size), given.data, given.images)
        for target in TARGETS:
            cells = show_scores(score(path, target, scenes))
            print(f"| {path.stem} | {target} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
