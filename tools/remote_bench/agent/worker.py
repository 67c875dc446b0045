"""The process that imports fastseg_runtime and runs the frames.

`python3 -m remote_bench.agent.worker PATH...` takes commands as messages on stdin: hello, open,
selftest, prepare, run, score, close. Messages go out on what was stdout: "frames" on the way, then
"answer" or "error". Anything that an engine prints goes to stderr, which is a log.
"""

import errno
import importlib
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..messages import Messages, encode
from .channel import Failure
from .frames import Frame, FrameLog, folder_frames, run_frames

_MOST_RECORD_BYTES = 1 << 20  # of an engine's build record, which has a kilobyte
_OLDEST_PYTHON = (3, 8)  # of fastseg_runtime; the agent itself runs on 3.6


class Bench:
    """The network under test, its frames and its outputs."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._net: Any = None
        self._bundle = ""
        self._frames: List[Frame] = []
        self._outputs: List[Any] = []
        self._ran: List[bool] = []

    def hello(self) -> Dict[str, Any]:
        """Import the runtime; the memory of this moment is the baseline."""
        if sys.version_info < _OLDEST_PYTHON:
            raise Failure(
                "old_python",
                f"the board's Python is {sys.version.split()[0]}, the runtime needs 3.8 or newer; "
                "JetPack 4 has 3.6 only: use JetPack 5 or newer, or install a newer python3",
            )
        self._import("numpy")
        self._import("fastseg_runtime.frames.session")
        return {}

    def open(self, bundle: str, target: Optional[str], cache_dir: Optional[str]) -> Dict[str, Any]:
        """Open the bundle, building the engine where there is none; answer what it took."""
        runtime = self._import("fastseg_runtime")
        if cache_dir:
            os.environ["FASTSEG_CACHE"] = cache_dir
        before = engine_records(cache_dir)
        begin = time.monotonic()
        self._net = runtime.RealtimeSegmentation(bundle, target=target)
        load_ms = 1e3 * (time.monotonic() - begin)
        self._bundle = bundle
        engines = engines_used(before, engine_records(cache_dir))
        info = json.loads(json.dumps(self._net.info, default=_as_json))
        info["threads"] = len(os.listdir("/proc/self/task"))  # of the process: the engine's and all
        info["usable_cores"] = len(os.sched_getaffinity(0))
        return dict(engines, load_ms=load_ms, info=info)

    def close(self) -> Dict[str, Any]:
        """Close the network, so that it can be opened again."""
        self._net.close()
        self._net = None
        return {}

    def selftest(self) -> Dict[str, Any]:
        """Run the bundle's self-test images once and compare with PyTorch's class maps."""
        frames = self._selftest_frames()
        outputs = [self._net.infer(frame.image_HW3).copy() for frame in frames]
        result = self._score(frames, outputs)
        agreement, required = result["agreement"], result["required"]
        if agreement is not None and agreement < required:
            raise Failure(
                "selftest_failed",
                "the network gives other classes here than PyTorch did: a self-test image agrees "
                f"in {agreement:.1%} of its pixels, {required:.1%} are needed. Try another target",
            )
        return result

    def prepare(self, folder: Optional[str]) -> Dict[str, Any]:
        """Load the frames of the run and set aside one output buffer for each."""
        import numpy as np

        # Frames as cameras give them: a network may be faster on a plain grey one.
        natural = self._import("fastseg_runtime.bundle.reader").NATURAL_SCENES
        self._frames = folder_frames(folder) if folder else self._selftest_frames()[:natural]
        if not self._frames:
            raise Failure("no_frames", "the bundle has no self-test image: give --frames")
        shapes = [frame.image_HW3.shape[:2] for frame in self._frames]
        self._outputs = [np.empty(shape, dtype=np.uint8) for shape in shapes]
        self._ran = [False] * len(self._frames)
        return {}

    def run(self, seconds: float, fps: Optional[float], least: int) -> Dict[str, Any]:
        """Time frames, over and over in their order."""
        log = FrameLog(lambda columns: self._send("frames", columns=columns))
        return run_frames(self._infer, seconds, fps, log, least)

    def score(self) -> Dict[str, Any]:
        """Compare the last outputs of the timed run with what was expected."""
        ran = [number for number, done in enumerate(self._ran) if done]
        return self._score([self._frames[n] for n in ran], [self._outputs[n] for n in ran])

    def _infer(self, number: int) -> Sequence[float]:
        at = number % len(self._frames)
        self._net.infer(self._frames[at].image_HW3, out=self._outputs[at])
        self._ran[at] = True
        stages_s: Sequence[float] = self._net.newest_stages_s
        return stages_s

    def _selftest_frames(self) -> List[Frame]:
        with self._import("fastseg_runtime.bundle.reader").open_bundle(self._bundle) as bundle:
            return [Frame(image, classes, None) for image, classes in bundle.selftests()]

    def _score(self, frames: List[Frame], outputs: List[Any]) -> Dict[str, Any]:
        """Return {"images", "agreement", "required", "miou", "labelled"}.

        The agreement is the least of any self-test image, and mIoU is over the labelled frames;
        None where there is nothing to compare with.
        """
        metrics = self._import("fastseg_runtime.arrays.metrics")
        resize_nearest = self._import("fastseg_runtime.arrays.image").resize_nearest

        def fit(classes_hw: Any, out_HW: Any) -> Any:
            return resize_nearest(classes_hw, out_HW.shape[1], out_HW.shape[0])

        agreements, counts = [], []
        for frame, out in zip(frames, outputs):
            if frame.reference_HW is not None:
                agreements.append(metrics.agreement(out, fit(frame.reference_HW, out)))
            if frame.label_HW is not None:
                label_HW, classes = fit(frame.label_HW, out), len(self._net.classes)
                counts.append(metrics.confusion_matrix(out, label_HW, classes))
        with self._import("fastseg_runtime.bundle.reader").open_bundle(self._bundle) as bundle:
            artifact = bundle.artifact(self._net.info.target)
        required = self._import("fastseg_runtime.engines.selftest").required_agreement(artifact)
        total = sum(counts) if counts else None
        # One class alone, in labels and answers, tells nothing: its IoU is 1 by construction.
        tells = total is not None and metrics.occurring_classes(total) > 1
        return {
            "images": len(outputs),
            "agreement": min(agreements) if agreements else None,
            "required": required,
            "miou": metrics.mean_iou(total) if tells else None,
            "labelled": len(counts),
        }

    @staticmethod
    def _import(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            kind = "no_numpy" if "numpy" in str(error) else "no_runtime"
            raise Failure(kind, f"{name} cannot be imported on the board: {error}") from error


def _as_json(value: Any) -> Any:
    """Return a record as a table, and the text of anything else that JSON does not know."""
    return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)


def engine_records(cache_dir: Optional[str]) -> Dict[str, Dict[str, Any]]:
    """Return {digest: record} of the engines that the runtime keeps on this board.

    fastseg_runtime writes engines/DIGEST.json beside each engine in the folder that FASTSEG_CACHE
    names. "used" in a record is when its engine was last stored or loaded.
    """
    folder = os.path.join(cache_dir or "", "engines")
    records: Dict[str, Dict[str, Any]] = {}
    for name in os.listdir(folder) if cache_dir and os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not name.endswith(".json"):
            continue
        try:
            with open(path, "rb") as file:
                record = json.loads(file.read(_MOST_RECORD_BYTES).decode("utf-8"))
            record["used"] = os.stat(path).st_mtime
        except (OSError, ValueError, TypeError):
            continue
        records[name[: -len(".json")]] = record
    return records


def engines_used(
    before: Dict[str, Dict[str, Any]], after: Dict[str, Dict[str, Any]]
) -> Dict[str, Any]:
    """Return {"built", "engines"}: whether one is new, and the records of those that were used."""
    used = {
        digest: record
        for digest, record in after.items()
        if digest not in before or record["used"] > before[digest]["used"]
    }
    return {
        "built": any(digest not in before for digest in used),
        "engines": [dict(record, digest=digest) for digest, record in sorted(used.items())],
    }


def answer(bench: Bench, request: Dict[str, Any]) -> Dict[str, Any]:
    """Do one command; a failure is an answer too."""
    command = request.pop("event")
    try:
        result: Dict[str, Any] = getattr(bench, command)(**request)
    except Failure as failure:
        return _error(failure.kind, str(failure))
    except MemoryError as error:
        return _error("oom", f"out of memory: {error}; take a smaller network, or add swap")
    except Exception as error:
        return _error(kind_of(command, error), f"{type(error).__name__}: {error}")
    return dict(result, event="answer")


def _error(kind: str, message: str) -> Dict[str, Any]:
    return {"event": "error", "kind": kind, "message": message}


def kind_of(command: str, error: Exception) -> str:
    """Return the kind of an error that came out of the runtime or the engine."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    if isinstance(error, ImportError):
        return "no_numpy" if error.name == "numpy" else "no_engine"
    if type(error).__name__ == "NoBackendError":
        return "selftest_failed" if "class map of the self-test" in str(error) else "no_engine"
    return {"open": "build_failed", "selftest": "selftest_failed"}.get(command, "run_failed")


def main() -> None:
    """Answer commands until stdin ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what engines print must not get between the answers
    sys.path[:0] = sys.argv[1:]

    def send(event: str, **fields: Any) -> None:
        line = encode(event, **fields)
        while line:
            line = line[os.write(answers, line) :]

    bench, commands = Bench(send), Messages()
    for chunk in iter(lambda: os.read(0, 1 << 16), b""):
        for request in commands.feed(chunk):
            send(**answer(bench, request))


if __name__ == "__main__":
    main()
