"""One conversion in a child process: one that crashes, hangs or floods harms nothing else.

The child is `python -m fastseg_exporters.job FOLDER`: it reads FOLDER/job.json, writes the
artifact into FOLDER/artifact and, when done, FOLDER/result.json.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.manifest import ClassInfo
from fastseg_targets.profile import Gate, Target

from fastseg.deploy import OutputKind
from fastseg_exporters.calibration import Calibration
from fastseg_exporters.exporter import ExportedArtifact, Request, load_exporter
from fastseg_exporters.source import NetworkSource

LOG_LINES_SHOWN, LOG_LINE_WIDTH = 15, 500


class ConversionError(RuntimeError):
    """A conversion failed; the message says why, and where its whole log is."""


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
    network_sha256: str = ""  # the child must open the very same weights; "": do not check


@dataclass(frozen=True)
class Converted:
    """What a child made, and what it took."""

    artifact: ExportedArtifact
    folder: Path  # with the artifact's files
    seconds: float
    peak_memory_mb: float


def run_job(job: Job, folder: Path, timeout_s: float) -> Converted:
    """Convert in a child process.

    Args:
        job: what to convert.
        folder: a new, empty folder for this job.
        timeout_s: the child and all its children are killed after it.

    Raises:
        ConversionError: it failed, crashed or took too long.
    """
    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(job)), "utf-8")
    (folder / "artifact").mkdir()
    start = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "fastseg_exporters.job", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ConversionError(
                f"{_name(job)} took more than {timeout_s:.0f} s and was stopped; "
                f"give it more with --timeout. {_tail(folder)}"
            ) from None
        finally:
            _kill_group(child)
    result = folder / "result.json"
    if code != 0 or not result.is_file():
        raise ConversionError(f"{_name(job)} {_ending(code)}. {_tail(folder)}")
    table = json.loads(result.read_text("utf-8"))
    artifact = ExportedArtifact(
        **{**table["artifact"], "layers": tuple(table["artifact"]["layers"])}
    )
    seconds = time.monotonic() - start
    return Converted(artifact, folder / "artifact", seconds, table["peak_memory_mb"])


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


def _read(folder: Path) -> Job:
    table: dict[str, Any] = json.loads((folder / "job.json").read_text("utf-8"))
    network, target = table["network"], table["target"]
    classes = network["classes"] and tuple(
        ClassInfo(c["name"], tuple(c["color"])) for c in network["classes"]
    )
    size = network["size"] and tuple(network["size"])
    lists = {"ladder": tuple(target["ladder"]), "devices": tuple(target["devices"])}
    return Job(
        **{
            **table,
            "network": NetworkSource(**{**network, "classes": classes, "size": size}),
            "target": Target(**{**target, **lists, "gate": Gate(**target["gate"])}),
            "calibration": Calibration(**table["calibration"]),
            "keep_float": tuple(table["keep_float"]),
        }
    )


def main(folder: Path) -> int:
    """Be the child: convert, write result.json last."""
    job = _read(folder)
    network = job.network.open()
    if job.network_sha256 not in ("", network.sha256):
        print(f"{job.network.spec} gives other weights each time: pass --weights", file=sys.stderr)
        return 1
    request = Request(
        network,
        job.target,
        job.precision,
        job.calibration,
        job.output,
        job.mask_stride,
        job.keep_float,
    )
    try:
        artifact = load_exporter(job.target.exporter)(request, folder / "artifact")
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"artifact": dataclasses.asdict(artifact), "peak_memory_mb": kilobytes / 1024}
    partial = folder / "result.json.part"
    partial.write_text(json.dumps(result), "utf-8")
    os.replace(partial, folder / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
