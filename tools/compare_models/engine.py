"""ONNX Runtime on the CPU: a graph as a call without arguments.

Many sessions live in one process here. So that they do not disturb each other, their threads stop
spinning when a run ends; and so that two threads of a run never share a core, each has its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import onnxruntime
from fastseg_runtime.arrays.metrics import Array

Call = Callable[[], Any]
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
    """Open a graph.

    Args:
        model: the graph.
        threads: of one operation.
        profile_prefix: start of the path of ONNX Runtime's profile; "" for none.
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
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def call_of(model: onnx.ModelProto, feed: Mapping[str, Array], threads: int) -> Call:
    """Return a call that runs the graph once."""
    session = open_session(model, threads)
    inputs = dict(feed)
    return lambda: session.run(None, inputs)
