"""Conversions in a child process: one that crashes, hangs or floods harms nothing else.

The child is `python -P -m fastseg_exporters.convert.child FOLDER`: it reads
FOLDER/conversions.json, writes the artifacts into FOLDER/0, FOLDER/1 ... and, when done,
FOLDER/result.json.
"""

import contextlib
import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.strict_tables import TableError, from_table

from fastseg.own_code import describe_error, place_of
from fastseg_exporters.convert.exporter import (
    Conversion,
    ConversionError,
    ExportedArtifact,
    Request,
    find_exporter,
    load_exporter,
)

# The end of a log that an error shows: a traceback with its message, but no screens of a graph.
LOG_LINES_SHOWN, LOG_LINE_WIDTH = 15, 500
MAX_REFUSAL = 2000  # letters; converters put whole tensors into their messages
SAMPLE_ROUNDING = 5e-3  # of the largest logit
POLL_S = 0.2  # a bar moves smoothly, and a child that ends is waited for no longer
MEASURED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
ORDER, RESULT = "conversions.json", "result.json"
REFUSAL = "refusal.txt"  # why nothing came of it, on one line


@dataclass(frozen=True)
class _Order:
    """What the child is given: conversions that differ in keep_float alone."""

    conversions: tuple[Conversion, ...]


@dataclass(frozen=True)
class _Result:
    """What it gives back: an artifact for each."""

    artifacts: tuple[ExportedArtifact, ...]
    peak_memory_mb: float


@dataclass(frozen=True)
class Converted:
    """What a child made, and what it took."""

    artifact: ExportedArtifact
    folder: Path  # with the artifact's files
    seconds: float
    peak_memory_mb: float


def convert(
    conversions: Sequence[Conversion],
    folder: Path,
    timeout_s: float,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Converted]:
    """Convert in one child process, which opens the network once.

    Args:
        conversions: one, or several that differ in keep_float alone.
        folder: gets a new folder with all that comes of it.
        timeout_s: for each conversion; the child and all its children are killed after it.
        progress: told how many conversions are done, a few times a second.

    Raises:
        ConversionError: one failed, crashed or took too long.
    """
    folder, name = Path(tempfile.mkdtemp(dir=folder)), str(conversions[0])
    order = dataclasses.asdict(_Order(tuple(conversions)))
    (folder / ORDER).write_text(json.dumps(order), "utf-8")
    start = time.monotonic()
    code = run_child(folder, timeout_s, progress)
    seconds = (time.monotonic() - start) / len(conversions)
    if code is None:
        raise ConversionError(
            f"{name} took more than {timeout_s:.0f} s and was stopped; "
            f"give it more with --timeout. {_tail(folder)}"
        )
    if (folder / REFUSAL).is_file():
        raise ConversionError(f"{name} failed: {(folder / REFUSAL).read_text('utf-8')}")
    if code != 0 or not (folder / RESULT).is_file():
        raise ConversionError(f"{name} {describe_ending(code)}. {_tail(folder)}")
    try:
        result = from_table(_Result, json.loads((folder / RESULT).read_text("utf-8")), RESULT)
    except TableError as error:
        raise ConversionError(f"{name}: its exporter gave what cannot be: {error}") from error
    return [
        Converted(artifact, folder / str(index), seconds, result.peak_memory_mb)
        for index, artifact in enumerate(result.artifacts)
    ]


def run_child(folder: Path, timeout_s: float, progress: Callable[[int], None]) -> int | None:
    """Return the child's exit code, or None if it had to be stopped; nothing of it is left."""
    own_temporary = folder / "tmp"  # what a killed converter leaves there goes with the folder
    own_temporary.mkdir()
    with (folder / "log.txt").open("wb") as log:
        # -P: a file of the current folder is no library, whatever its name.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "fastseg_exporters.convert.child", str(folder)],
            env={**os.environ, "TMPDIR": str(own_temporary)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _wait(child, folder, timeout_s, progress)
        finally:
            kill_group(child)


def _wait(
    child: "subprocess.Popen[bytes]",
    folder: Path,
    timeout_s: float,
    progress: Callable[[int], None],
) -> int | None:
    """Return the child's exit code, or None once a single conversion took too long."""
    done, deadline = 0, time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL_S)
        finished = sum(1 for _ in folder.glob("[0-9]*")) - 1  # the newest is being written
        if finished > done:
            done, deadline = finished, time.monotonic() + timeout_s
        progress(done)
    return None


def kill_group(child: "subprocess.Popen[bytes]") -> None:
    """Kill a child, that was started in a session of its own, and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # it ended, and left no children behind
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def describe_ending(code: int) -> str:
    """Return how a child ended that gave no result, in words."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "failed" if code else "ended without a result"


def _tail(folder: Path) -> str:
    with (folder / "log.txt").open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(0, end - LOG_LINES_SHOWN * LOG_LINE_WIDTH))  # it may hold megabytes
        lines = log.read().decode("utf-8", "replace").splitlines()
    last = [line for line in lines if line.strip()][-LOG_LINES_SHOWN:]
    return "\n  ".join(["It said:", *last]) if last else "It said nothing."


def _export(conversions: Sequence[Conversion], folder: Path) -> tuple[ExportedArtifact, ...]:
    recipe, target = conversions[0].recipe, conversions[0].target
    network = recipe.source.open()
    if recipe.network_sha256 not in ("", network.sha256):
        raise ValueError(f"{recipe.source.spec} gives other weights each time: pass --weights")
    if recipe.sample and not _alike(network.sample(), recipe.sample):
        raise ValueError(
            f"{recipe.source.spec} makes another network each time, of the same weights: seed what "
            "it draws (torch.manual_seed), or register it as a buffer and pass --weights"
        )
    find_exporter(target.exporter).check_takes(network)
    export = load_exporter(target.exporter)
    request = Request(network, conversions[0])
    artifacts = []
    for index, conversion in enumerate(conversions):
        out_dir = folder / str(index)
        out_dir.mkdir()
        artifacts.append(export(dataclasses.replace(request, conversion=conversion), out_dir))
    return tuple(artifacts)


def _alike(sample: Sequence[float], expected: Sequence[float]) -> bool:
    """Return whether logits are the same but for rounding, which other threads do otherwise."""
    largest = max((abs(logit) for logit in expected if math.isfinite(logit)), default=0.0)
    return np.allclose(sample, expected, rtol=0, atol=SAMPLE_ROUNDING * largest, equal_nan=True)


def _peak_memory_mb() -> float:
    peaks = (resource.getrusage(who).ru_maxrss for who in MEASURED)
    return max(peaks) / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes or kilobytes


def _refuse(folder: Path, why: str) -> int:
    """Say it apart from the log, into which converters print whole graphs."""
    write_file(folder / REFUSAL, " ".join(why.split())[:MAX_REFUSAL].encode("utf-8", "replace"))
    return 1


def main(folder: Path) -> int:
    """Be the child: convert, write the result last."""
    try:
        order = from_table(_Order, json.loads((folder / ORDER).read_text("utf-8")), ORDER)
        artifacts = _export(order.conversions, folder)
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        return _refuse(folder, f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        if not place_of(error):
            raise
        return _refuse(folder, describe_error(error))  # the user's own code
    try:
        result = json.dumps(dataclasses.asdict(_Result(artifacts, _peak_memory_mb())))
    except (TypeError, ValueError) as error:  # a Path, a number of numpy's
        return _refuse(folder, f"its exporter gave what cannot be: {error}")
    write_file(folder / RESULT, result.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
