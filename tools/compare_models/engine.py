"""ONNX Runtime on the CPU: a graph as a call without arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnxruntime
from fastseg_runtime.metrics import Array

Call = Callable[[], Any]


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
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def call_of(model: onnx.ModelProto, feed: Mapping[str, Array], threads: int) -> Call:
    """Return a call that runs the graph once."""
    session = open_session(model, threads)
    inputs = dict(feed)
    return lambda: session.run(None, inputs)
