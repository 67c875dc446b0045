"""One conversion in a child process: one that crashes, hangs or floods harms nothing else.

The child is `python -m fastseg_exporters.convert.job FOLDER`: it reads FOLDER/job.json, writes the
artifact into FOLDER/0 (more conversions of one job: FOLDER/1 ...) and, when done,
FOLDER/result.json.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_targets.target import Target

from fastseg.deploy import OutputKind
from fastseg.own_code import describe_error, place_of
from fastseg_exporters.convert.exporter import (
    ConversionError,
    ExportedArtifact,
    Request,
    load_exporter,
)
from fastseg_exporters.convert.source import Calibration, NetworkSource

LOG_LINES_SHOWN, LOG_LINE_WIDTH = 15, 500
MAX_REFUSAL = 2000  # letters
POLL_S = 0.2
MEASURED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
REFUSAL = "refusal.txt"  # in the job's folder: why nothing came of it, on one line
VARIANTS = "keep_floats"  # in job.json, beside the fields of Job


@dataclass(frozen=True)
class Job:
    """Everything that the child needs, as plain data."""

    network: NetworkSource
    target: Target
    precision: str
    calibration: Calibration
    output: OutputKind = "classes"
    mask_stride: int = 1
    keep_float: tuple[str, ...] = ()
    keep_norms: tuple[str, ...] = ()
    network_sha256: str = ""  # the child must open the very same weights; "": do not check


@dataclass(frozen=True)
class Converted:
    """What a child made, and what it took."""

    artifact: ExportedArtifact
    folder: Path  # with the artifact's files
    seconds: float
    peak_memory_mb: float


def run_job(job: Job, folder: Path, timeout_s: float) -> Converted:
    """Convert in a child process; see run_variants for arguments and errors."""
    (converted,) = run_variants(job, [job.keep_float], folder, timeout_s)
    return converted


def run_variants(
    job: Job,
    keep_floats: Sequence[tuple[str, ...]],
    folder: Path,
    timeout_s: float,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Converted]:
    """Convert several times in one child process, each time with other layers left in float.

    Args:
        job: what to convert; its own keep_float is not used.
        keep_floats: one for each conversion.
        folder: a new, empty folder for this job.
        timeout_s: for each conversion; the child and all its children are killed after it.
        progress: told how many conversions are done, a few times a second.

    Raises:
        ConversionError: one failed, crashed or took too long.
    """
    table = {**dataclasses.asdict(job), VARIANTS: keep_floats}
    (folder / "job.json").write_text(json.dumps(table), "utf-8")
    own_temporary = folder / "tmp"  # what a killed converter leaves there goes with the folder
    own_temporary.mkdir()
    start = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "fastseg_exporters.convert.job", str(folder)],
            env={**os.environ, "TMPDIR": str(own_temporary)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = _wait(child, folder, timeout_s, progress)
        finally:
            _kill_group(child)
    if code is None:
        raise ConversionError(
            f"{_name(job)} took more than {timeout_s:.0f} s and was stopped; "
            f"give it more with --timeout. {_tail(folder)}"
        )
    refusal, result = folder / REFUSAL, folder / "result.json"
    if refusal.is_file():
        raise ConversionError(f"{_name(job)} failed: {refusal.read_text('utf-8')}")
    if code != 0 or not result.is_file():
        raise ConversionError(f"{_name(job)} {_ending(code)}. {_tail(folder)}")
    seconds = (time.monotonic() - start) / len(keep_floats)
    try:
        return _converted(json.loads(result.read_text("utf-8")), folder, seconds)
    except TableError as error:
        raise ConversionError(f"{_name(job)}: its exporter gave what cannot be: {error}") from error


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


def _converted(table: dict[str, Any], folder: Path, seconds: float) -> list[Converted]:
    return [
        Converted(
            from_table(ExportedArtifact, artifact, "result.json"),
            folder / str(index),
            seconds,
            table["peak_memory_mb"],
        )
        for index, artifact in enumerate(table["artifacts"])
    ]


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended, and left no children behind
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _name(job: Job) -> str:
    return f"{job.target.name} in {job.precision}"


def _ending(code: int) -> str:
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


def _read(folder: Path) -> tuple[Job, list[tuple[str, ...]]]:
    table: dict[str, Any] = json.loads((folder / "job.json").read_text("utf-8"))
    keep_floats = [tuple(names) for names in table.pop(VARIANTS)]
    return from_table(Job, table, "job.json"), keep_floats


def _export(job: Job, keep_floats: list[tuple[str, ...]], folder: Path) -> list[ExportedArtifact]:
    network = job.network.open()
    if job.network_sha256 not in ("", network.sha256):
        raise ValueError(f"{job.network.spec} gives other weights each time: pass --weights")
    export = load_exporter(job.target.exporter)
    request = Request(
        network,
        job.target,
        job.precision,
        job.calibration,
        job.output,
        job.mask_stride,
        keep_norms=job.keep_norms,
    )
    artifacts = []
    for index, names in enumerate(keep_floats):
        out_dir = folder / str(index)
        out_dir.mkdir()
        artifacts.append(export(dataclasses.replace(request, keep_float=names), out_dir))
    return artifacts


def _peak_memory_mb() -> float:
    peaks = (resource.getrusage(who).ru_maxrss for who in MEASURED)
    return max(peaks) / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes or kilobytes


def _refuse(folder: Path, why: str) -> int:
    """Say it apart from the log, into which converters print whole graphs."""
    write_file(folder / REFUSAL, " ".join(why.split())[:MAX_REFUSAL].encode("utf-8", "replace"))
    return 1


def main(folder: Path) -> int:
    """Be the child: convert, write result.json last."""
    try:
        artifacts = _export(*_read(folder), folder)
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        return _refuse(folder, f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        if not place_of(error):
            raise
        return _refuse(folder, describe_error(error))  # the user's own code
    tables = [dataclasses.asdict(artifact) for artifact in artifacts]
    result = {"artifacts": tables, "peak_memory_mb": _peak_memory_mb()}
    write_file(folder / "result.json", json.dumps(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
