"""Peak memory of one graph: a child process of its own runs it and tells.

The child is `python -m compare_models.memory FOLDER`, with model.onnx and feed.npz in FOLDER.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array

RUNS = 3
TIMEOUT_S = 300


def peak_memory_mb(model: onnx.ModelProto, feed: Mapping[str, Array], threads: int) -> float:
    """Return by how many MB of 2^20 bytes a process grows at most that opens and runs a graph.

    NaN where no kernel tells (there is no /proc), where it takes longer than TIMEOUT_S, and where
    the process fails, as for want of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/model.onnx")
        np.savez(f"{folder}/feed.npz", allow_pickle=False, **feed)
        command = [sys.executable, "-P", "-m", "compare_models.memory", folder, str(threads)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return math.nan
    if child.returncode:
        print(f"measuring memory failed: {child.stderr.strip()[-500:]}", file=sys.stderr)
        return math.nan  # the times that were measured before it count all the same
    return float(child.stdout)


def main(folder: Path, threads: int) -> None:
    """Be the child: run the graph, print the growth."""
    from compare_models.timing import open_session

    with np.load(folder / "feed.npz", allow_pickle=False) as arrays:
        feed = dict(arrays)
    before_mb = _status_mb("VmRSS")
    session = open_session((folder / "model.onnx").read_bytes(), threads)
    for _ in range(RUNS):
        session.run(None, feed)
    print(_status_mb("VmHWM") - before_mb)


def _status_mb(key: str) -> float:
    """Return a size from /proc/self/status (proc(5))."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    lines = status.read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
