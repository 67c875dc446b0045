"""What a run on somebody's machine shows: which rows of "not run" it closes, and why not others.

The rows are not_run.toml, which README's "What was not run" is made of too.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal

from fastseg_runtime.arrays.strict_tables import from_table

from remote_bench.analysis.report import Table, to_table

SCHEMA: Final = 1


@dataclass(frozen=True)
class NotRun:
    """A row: what nobody has run, and what a run must be to close it; see not_run.toml."""

    title: str
    text: str
    engines: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    over_ssh: bool = False
    pages: tuple[str, ...] = ()

    @property
    def by_hand(self) -> bool:
        """Return whether no command closes it."""
        return not (self.engines or self.devices or self.machines or self.over_ssh)

    def is_of(self, place: Place) -> bool:
        """Return whether it is about such a place."""
        return (
            not self.by_hand
            and (not self.devices or place.device in self.devices)
            and (not self.machines or place.machine in self.machines)
            and place.over_ssh >= self.over_ssh
        )


@dataclass(frozen=True)
class _Rows:
    row: tuple[NotRun, ...]


def not_run() -> tuple[NotRun, ...]:
    """Return all rows, in README's order."""
    text = resources.files("remote_bench").joinpath("not_run.toml").read_text("utf-8")
    return from_table(_Rows, tomllib.loads(text), "not_run.toml").row


@dataclass(frozen=True)
class Place:
    """Where it ran. `rehearsal` says why it is no real board; "" where it is one."""

    device: str  # of its file in fastseg_targets
    description: str
    machine: str
    over_ssh: bool
    rehearsal: str = ""


@dataclass(frozen=True)
class Labelled:
    """The labelled frames that a target ran, and what the reference gave on the same ones."""

    frames: int
    miou: float
    reference_miou: float | None  # None: no engine here gave one
    most_drop: float  # of the target's gate

    @property
    def drop(self) -> float | None:
        """Return how much worse it is, as a fraction."""
        return None if self.reference_miou is None else self.reference_miou - self.miou


@dataclass(frozen=True)
class TargetRun:
    """What came of one artifact of the bundle."""

    target: str
    precision: str
    made_for: str  # the engine
    engine: str | None = None  # that ran it
    version: str | None = None
    agreement: float | None = None  # with PyTorch, of the worst scene of the self-test
    required: float | None = None
    labelled: Labelled | None = None
    fps: float | None = None
    p50_ms: float | None = None
    power_w: float | None = None
    verdict: str | None = None  # of the report in TARGET.json
    audit: tuple[Table, ...] = ()  # of the engines that were built: what the layers are in
    problem: str = ""  # why it did not run, or not to its end
    skipped: bool = False  # nothing there could run it

    @property
    def no_evidence(self) -> str:
        """Return why it closes nothing; "" where it is evidence."""
        if self.problem:
            return self.problem
        if self.agreement is None or self.required is None:
            return "no self-test ran"
        if self.agreement < self.required:
            return f"its self-test agrees in {self.agreement:.1%}, {self.required:.1%} are needed"
        if self.verdict == "invalid":
            return "the measurement is invalid"
        return self._no_accuracy()

    @property
    def failed(self) -> bool:
        """Return whether it was tried and is wrong; what was not asked for is no fault."""
        asked = self.labelled is not None and self.labelled.drop is not None
        if self.agreement is not None and self.required is not None:
            asked = asked or self.agreement < self.required
        return bool(self.no_evidence) and not self.skipped and bool(self.problem or asked)

    def _no_accuracy(self) -> str:
        if self.labelled is None:
            return "it ran no labelled frames; give --frames FOLDER, with labels/ beside images/"
        if self.labelled.drop is None:
            return "no engine here gave a reference; pip install onnxruntime here"
        if self.labelled.drop > self.labelled.most_drop:
            most = f"{100 * self.labelled.most_drop:.1f} are allowed"
            return f"it loses {100 * self.labelled.drop:.1f} points of mIoU, {most}"
        return ""


@dataclass(frozen=True)
class RowState:
    """Whether a row is closed: by which targets, or why not."""

    title: str
    closed: bool
    why: str


@dataclass(frozen=True)
class Evidence:
    """All that came of one call, and what is left open."""

    schema: Literal[1]
    created: str  # ISO 8601
    tool: str
    place: Place
    facts: Table  # of the board or machine: versions, and what was readable
    bundle: Table  # name, SHA-256, network and input
    frames: str  # what was run, in words
    reference: str  # what mIoU is held against, in words
    runs: tuple[TargetRun, ...] = ()
    unfinished: str = ""  # why it ended early

    def rows(self) -> tuple[RowState, ...]:
        """Return the state of each row of "not run"."""
        return tuple(map(self._state, not_run()))

    def _state(self, row: NotRun) -> RowState:
        if not row.is_of(self.place):
            why = "no command closes it" if row.by_hand else "it needs another machine"
            return RowState(row.title, False, why)
        runs = [run for run in self.runs if _is_of(row, run)]
        good = [run.target for run in runs if not run.no_evidence]
        if good and self.place.rehearsal:
            return RowState(row.title, False, f"a rehearsal: {self.place.rehearsal}")
        if good:
            return RowState(row.title, True, ", ".join(good))
        whys = [f"{run.target}: {run.no_evidence}" for run in runs]
        return RowState(row.title, False, "; ".join(whys) or "no target for it ran")

    @property
    def ran(self) -> bool:
        """Return whether any artifact ran."""
        return any(run.engine for run in self.runs)

    def to_table(self) -> dict[str, Any]:
        """Return what report.json has."""
        runs = [{**to_table(run), "no_evidence": run.no_evidence} for run in self.runs]
        return {**to_table(self), "runs": runs, "not_run": to_table(self.rows())}


def _is_of(row: NotRun, run: TargetRun) -> bool:
    return not row.engines or (run.engine or run.made_for) in row.engines
