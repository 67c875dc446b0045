"""Interleaved timing, A B C A B C ..., and ratios with their spread.

Whatever else the machine does falls on all sides alike, so the ratios of one round can be trusted
where times cannot. Many sessions of ONNX Runtime live in one process here. So that they do not
disturb each other, their threads stop spinning when a run ends; and so that two threads of a run
never share a core, each has its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.stats import bootstrap, interval95

from fastseg.progress import show_progress

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the reference, over the rounds of one run."""

    median: float  # of the ratios of single rounds
    low: float  # of the 95 % interval of the median
    high: float  # likewise
    fastest: float  # of the fastest rounds of both: what is left when nobody else disturbs

    def __str__(self) -> str:
        """Return it with its interval, "2.10 (2.05 to 2.14)"."""
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def time_rounds(calls: Mapping[str, Call], rounds: int) -> dict[str, Floats]:
    """Time all calls in turn, again and again.

    Each timed call follows an untimed one of the same network: its weights are in the cache again
    and the threads of the network before have gone to sleep.

    Returns:
        Milliseconds of every round, by name.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    for _ in show_progress(range(rounds), "timing", rounds):
        for name, call in calls.items():
            call()
            start = perf_counter()
            call()
            times_ms[name].append(1e3 * (perf_counter() - start))
    return {name: np.array(times) for name, times in times_ms.items()}


def ratio_to(reference_ms: Floats, times_ms: Floats) -> Ratio:
    """Return the reference's time over the other's, round by round."""
    ratios = reference_ms / times_ms
    medians = bootstrap(lambda picked: np.median(ratios[picked]), len(ratios), RESAMPLES)
    fastest = float(reference_ms.min() / times_ms.min())
    return Ratio(float(np.median(ratios)), *interval95(medians), fastest)


Call = Callable[[], Any]
Graph = tuple[onnx.ModelProto, Mapping[str, Array]]  # and an input for it
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Keep this thread on the first core meanwhile. Threads that it starts would stay there too."""
    if CORES:
        os.sched_setaffinity(0, CORES[:1])
    try:
        yield
    finally:
        if CORES:
            os.sched_setaffinity(0, CORES)


def open_session(
    model: onnx.ModelProto | bytes, threads: int, profile_prefix: str = ""
) -> onnxruntime.InferenceSession:
    """Open a graph, with threads of one operation; a profile's path begins with its prefix.

    Raises:
        ValueError: ONNX Runtime does not run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = bool(profile_prefix)
    options.profile_file_prefix = profile_prefix
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if 1 < threads <= len(CORES):  # this thread's is the first; they count from 1
        own_cores = ";".join(str(core + 1) for core in CORES[1:threads])
        options.add_session_config_entry("session.intra_op_thread_affinities", own_cores)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        words = " ".join(str(error).split())[:300]
        raise ValueError(f"ONNX Runtime does not run a graph that is compared: {words}") from error


def time_graphs(graphs: Mapping[str, Graph], threads: int, rounds: int) -> dict[str, Floats]:
    """Time graphs in turn, each on its input, by ONNX Runtime; see time_rounds()."""
    calls = {name: call_of(*graph, threads) for name, graph in graphs.items()}
    with pinned():
        return time_rounds(calls, rounds)


def call_of(model: onnx.ModelProto, feed: Mapping[str, Array], threads: int) -> Call:
    """Return a call that runs the graph once."""
    session = open_session(model, threads)
    inputs = dict(feed)
    return lambda: session.run(None, inputs)
