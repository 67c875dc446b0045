"""A referee's script in a child process, and a verdict whatever becomes of it."""

import dataclasses
import json
import os
import subprocess
import tempfile
from pathlib import Path

from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import Artifact, check_open_table, read_json, without_nan

from fastseg_exporters.convert.child import describe_ending, kill_group
from fastseg_exporters.gate.referees.referee import MAX_LINE, Answer, Referee, Request, Verdict

MAX_ANSWER = 1 << 16  # bytes of the last line; a manifest has a few kilobytes for each artifact
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS")  # nothing of our Python's


def judge(referee: Referee, artifact: Artifact, folder: Path, work: Path) -> Verdict:
    """Return what a referee says of an artifact; this raises nothing that its script causes.

    Args:
        referee: installed.
        artifact: as the manifest has it.
        folder: with its files.
        work: an empty folder; its `frames`, if it has one, are run, and what comes of them is in
            `outputs` afterwards.
    """
    frames, outputs = work / "frames", work / "outputs"
    outputs.mkdir()
    request = Request(
        str(folder.absolute()),
        artifact.entry.removeprefix(f"artifacts/{artifact.target}/"),
        artifact.precision,
        artifact.io,
        str(frames.absolute()) if frames.is_dir() else None,
        str(outputs.absolute()),
    )
    try:
        answer = _ask(referee, request)
    except _NoAnswerError as error:
        return Verdict(referee.name, "", "failed", str(error)[:MAX_LINE], {}, referee.is_not)
    return Verdict(
        referee.name,
        answer.version,
        "accepted" if answer.accepted else "refused",
        answer.says,
        answer.facts,
        referee.is_not,
    )


class _NoAnswerError(Exception):
    """The script gave none; why, on one line."""


def _ask(referee: Referee, request: Request) -> Answer:
    with tempfile.TemporaryDirectory(prefix="fastseg-referee-") as name:
        own = Path(name)
        (own / "request.json").write_text(json.dumps(dataclasses.asdict(request)), "utf-8")
        try:
            code = _run(referee, own)
        except OSError as error:  # its Python is gone, or another than it was
            raise _NoAnswerError(f"does not start: {error}") from error
        if code is None:
            raise _NoAnswerError(f"took more than {referee.timeout_s:.0f} s and was stopped")
        if code:
            raise _NoAnswerError(f"{describe_ending(code)}: {last_line(own / 'log.txt')}")
        try:
            table = without_nan(read_json(last_line(own / "answer.txt")))
            check_open_table([[table]], "its answer")  # as deep as in Artifact.extra
            json.dumps(table, ensure_ascii=False).encode("utf-8")
            return from_table(Answer, table, "its answer")
        except (ValueError, RecursionError) as error:  # TableError is one too
            raise _NoAnswerError(f"gave no verdict: {one_line(str(error))}") from error


def _run(referee: Referee, own: Path) -> int | None:
    """Return the exit code, or None if it had to be stopped; nothing of it is left running."""
    with (
        (own / "request.json").open("rb") as request,
        (own / "answer.txt").open("wb") as answer,
        (own / "log.txt").open("wb") as log,
    ):
        child = subprocess.Popen(
            [str(referee.python), "-I", str(referee.script_file)],
            env=child_environment(own),
            cwd=own,  # toolchains leave files where they are started
            stdin=request,
            stdout=answer,
            stderr=log,
            start_new_session=True,
        )
        try:
            return child.wait(referee.timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            kill_group(child)


def child_environment(own: Path) -> dict[str, str]:
    """Return the environment of a referee's process, whose temporary files go into `own`."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "TMPDIR": str(own)}


def last_line(path: Path) -> str:
    """Return the last line of a file that has something on it."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_ANSWER))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [line for line in lines if line.strip()]
    return said[-1] if said else "it said nothing"


def one_line(text: str) -> str:
    """Return a text on one line, without what a terminal would obey."""
    return " ".join(printable(text).split())
