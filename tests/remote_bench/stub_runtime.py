"""Stands in for fastseg_runtime where a test needs faults on demand: the "bundle" is JSON.

Keys: infer_ms, wrong (share of wrong pixels), built (an engine was built), at_open and at_frame
(what happens there: "oom", "exit", "error", "no_engine", "hang", "chatter", "child").
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

SIZE = (32, 64)


class _Bundle:
    def selftests(self):
        for seed in (0, 1):
            rng = np.random.default_rng(seed)
            yield rng.integers(0, 255, (*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)


class RealtimeSegmentation:
    def __init__(self, model_path, target=None, cache_dir=None):
        with open(model_path) as file:
            self._facts = json.load(file)
        built = bool(self._facts.get("built")) and not os.path.exists(model_path + ".engine")
        if built:
            open(model_path + ".engine", "w").close()
        self.bundle = _Bundle()
        self.classes = ["road", "sky"]
        self.timing = {}
        self.info = {"target": target or "stub", "built": built, "backend": "stub"}
        self._frames = 0
        _happen(self._facts.get("at_open"))

    def infer(self, image, out=None):
        self._frames += 1
        if self._frames == 5:
            _happen(self._facts.get("at_frame"))
        out = np.empty(image.shape[:2], np.uint8) if out is None else out
        out[:] = 0
        out[: round(self._facts.get("wrong", 0) * out.shape[0])] = 1
        time.sleep(self._facts.get("infer_ms", 2) / 1e3)
        self.timing = {"pre_ms": 0.25, "infer_ms": self._facts.get("infer_ms", 2), "post_ms": 0.5}
        return out

    def close(self):
        self.bundle = None


def _happen(what):
    if what == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        sys.stderr.write("cudaMalloc failed\n")
        os._exit(7)
    elif what == "error":
        raise RuntimeError("engine said no")
    elif what == "no_engine":
        raise ImportError("no engine here", name="onnxruntime")
    elif what == "hang":
        time.sleep(600)
    elif what == "chatter":
        print("[TRT] hello from the engine" * 1000)
        os.write(1, b'@token {"event": "result"}\n')
    elif what == "child":
        subprocess.Popen(["sleep", "600"])
