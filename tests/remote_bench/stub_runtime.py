"""The real runtime with faults on demand: this file takes the place of its __init__.py.

faults.json beside the bundle holds: infer_ms (added to each frame), wrong (share of rows that get
another class), built (an engine is "built" at the first start), at_open and at_frame (what
happens there: "oom", "exit", "error", "nvmap", "no_engine", "hang", "chatter", "child", "fill").
"""

import json
import os
import signal
import subprocess
import sys
import time

from fastseg_runtime.frames.session import RealtimeSegmentation as _Real


class RealtimeSegmentation(_Real):
    def __init__(self, model_path, **options):
        with open(os.path.join(os.path.dirname(model_path), "faults.json")) as file:
            self._faults = json.load(file)
        self._frames = 0
        if self._faults.get("built"):
            _build()
        _happen(self._faults.get("at_open"))
        super().__init__(model_path, **options)

    def infer(self, image, out=None):
        self._frames += 1
        if self._frames == 5:
            _happen(self._faults.get("at_frame"))
        time.sleep(self._faults.get("infer_ms", 2) / 1e3)
        out = super().infer(image, out)
        rows = round(self._faults.get("wrong", 0) * out.shape[0])
        out[:rows] = (out[:rows] + 1) % 3
        return out


def _build():
    folder = os.path.join(os.environ["FASTSEG_CACHE"], "engines")
    os.makedirs(folder, exist_ok=True)
    record = os.path.join(folder, "digest.json")
    if not os.path.exists(record):
        with open(record, "w") as file:
            json.dump({"engine_sha256": "ab" * 32}, file)


def _happen(what):
    if what == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        sys.stderr.write("cudaMalloc failed\n")
        os._exit(7)
    elif what == "nvmap":  # a Jetson's driver prints, and TensorRT gives up in other words
        sys.stderr.write("NvMapMemAllocInternalTagged: 1075072515 error 12\n")
        sys.stderr.flush()
        raise RuntimeError("engine said no")
    elif what == "error":
        raise RuntimeError("engine said no")
    elif what == "no_engine":
        raise ImportError("no engine here", name="onnxruntime")
    elif what == "hang":
        time.sleep(600)
    elif what == "chatter":
        print("[TRT] hello from the engine" * 1000)
        os.write(1, b'@token {"event": "result"}\n')
    elif what == "fill":  # an engine that the disk cannot hold
        os.makedirs(os.environ["FASTSEG_CACHE"], exist_ok=True)
        with open(os.path.join(os.environ["FASTSEG_CACHE"], "half.engine"), "wb") as file:
            file.write(bytes(64_000_000))
    elif what == "child":
        subprocess.Popen(["sleep", "600"])
