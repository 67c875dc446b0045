"""`remote_bench compare`: a difference with its interval, or why there is none.

One thing may differ between two sides: the network, the software, the power mode and clocks, the
frames, the way it was measured, or the board. Where more than one does, a percentage would say
nothing about any of them.

What varies is the block, not the frame: frames of one block share clocks, memory and neighbours.
So the intervals are between runs, where each side has several, else between blocks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from remote_bench.analysis.report import Block, Report
from remote_bench.analysis.stats import Interval, t_quantile
from remote_bench.analysis.verdict import LIMITS

# What must be equal within a group for the group not to differ. A table's keys are held one by one.
_GROUPS = {
    "network": "bundle.artifact_sha256 bundle.sha256 engine.target engine.precision bundle.width"
    " bundle.height",
    "software": "engine.backend engine.version engine.device engine.delegates flags.binary"
    " flags.arguments device.l4t device.kernel device.python device.modules device.packages"
    " device.desktop",
    "threads": "engine.threads engine.usable_cores",
    "power mode and clocks": "device.power_mode.name device.power_mode.id device.settings"
    " device.cpu_count",  # of cores that are on: nvpmodel switches some off
    "board": "device.name device.module device.model device.serial_sha256 device.cpu"
    " device.memory_mb",
    "frames": "flags.frames flags.frames_sha256 flags.fps",
    "measurement": "flags.seconds flags.repeats flags.warmup_s flags.idle_s flags.sampler_hz",
}
_SETTINGS = "device.settings"  # of files: what a side lacks, an older tool did not look for
_SAME_MEMORY = 0.02  # MemTotal moves with the kernel, and modules differ by halves
# Two questions are asked, speed and power; both together are wrong in 5 % of equal pairs at most.
_SPEED, _POWER = 0.96, 0.99
# How runs differ beyond their blocks, as a standard deviation of a share. It cannot be seen in one
# run a side, so it is assumed: at least so much, and as great a part of what blocks differ by as it
# was on a busy machine. See tools/bench_figures/simulate_compare.py.
RUN_SPREAD, _OF_BLOCKS = 0.018, 0.6
_SMALL = 0.05  # a difference that nobody takes two runs for different for; see verdict.LIMITS
_MANY = 1000  # degrees of freedom of what is not estimated
LEAST = 3  # values a side that have an interval worth showing
Name = Literal["fps", "mean_w", "j_per_frame", "p50", "p90", "p99"]
_METRICS: dict[Name, tuple[str, Callable[[Block], float | None]]] = {
    "fps": ("frames/s", lambda block: block.fps),
    "p50": ("ms", lambda block: block.latency_ms.get("p50")),
    "p90": ("ms", lambda block: block.latency_ms.get("p90")),
    "p99": ("ms", lambda block: block.latency_ms.get("p99")),
    "mean_w": ("W", lambda block: block.mean_w),
    "j_per_frame": ("J/frame", lambda block: block.mean_w and block.mean_w / block.fps),
}
Answer = Literal["different", "no_difference", "cannot_tell", "not_comparable"]


@dataclass(frozen=True)
class Difference:
    """One metric of two sides; the change is a fraction of a."""

    metric: Name
    unit: str
    a: float
    b: float
    change: float
    interval: Interval | None
    level: float  # of the interval
    sure: bool  # the interval leaves out no change, nor do those that this metric hangs on


@dataclass(frozen=True)
class Comparison:
    """Two sides held against each other.

    `differs` maps each group that differs to texts like "device.l4t: 36.4.3, 36.5.0"; there are no
    differences where the two are not comparable.
    """

    answer: Answer
    headline: str
    basis: str  # what the intervals are between
    notes: tuple[str, ...]  # the verdict of each report and all its notes
    reasons: tuple[str, ...]  # why they are not comparable, or less was measured than asked for
    differs: dict[str, tuple[str, ...]]
    differences: tuple[Difference, ...]


def compare(
    a: Sequence[Report], b: Sequence[Report], in_turns: bool = False, failed: str = ""
) -> Comparison:
    """Compare two sides.

    Args:
        a: reports of runs under one condition.
        b: those of the other.
        in_turns: the runs took turns on one board: they are compared pair by pair, so that what
            drifts there falls on both.
        failed: what ended the turns early; "": nothing.
    """
    named = [(f"{side}{number if len(reports) > 1 else ''}", report)
             for side, reports in (("A", a), ("B", b))
             for number, report in enumerate(reports, start=1)]  # fmt: skip
    differs, early = _differing([*a, *b]), (failed,) if failed else ()
    unlike = _unlike_power(named, "board" in differs)
    if "board" in differs and "power mode and clocks" in differs:
        differs["board"] += differs.pop("power mode and clocks")  # modes are not portable
    reasons = [f"{name} {why}" for name, report in named for why in _untrusted(report)]
    if not in_turns:  # one run of the tool, and so one name
        reasons += [f"the run {run_id} is there {count} times; measure it again for each"
                    for run_id, count in Counter(r.run_id for r in (*a, *b)).items()
                    if run_id and count > 1]  # fmt: skip
    if len(differs) > 1:
        reasons += [f"{group}: {text}" for group, texts in differs.items() for text in texts]
    notes = tuple(note for name, report in named for note in _notes(name, report))
    if reasons:
        return Comparison("not_comparable", "", "", notes, (*reasons, *early), differs, ())
    metrics = [name for name in _METRICS if not (unlike and name in ("mean_w", "j_per_frame"))]
    differences = tuple(_differences(a, b, in_turns, metrics))
    answer, headline = _answer(min(len(a), len(b)), in_turns, *differences[:1])
    basis, less = _basis(a, b, in_turns), (*early, *unlike)
    return Comparison(answer, headline, basis, notes, less, differs, differences)


def _unlike_power(named: Sequence[tuple[str, Report]], of_boards: bool) -> tuple[str, ...]:
    """Return why the power of these runs is not held against each other; () where it is.

    On one board the rails have to be the same, else what is missing on a side is called saved;
    two boards have rails of their own, and what these supply has to be the same.
    """
    first: dict[tuple[str, ...], str] = {}
    for name, report in named:
        if power := report.power:
            key = (power.scope,) if of_boards else (power.scope, *power.rails)
            first.setdefault(key, f"{name} is {'+'.join(power.rails)} ({power.scope})")
    return (f"power is not compared: {', '.join(first.values())}",) if len(first) > 1 else ()


def _notes(name: str, report: Report) -> Iterator[str]:
    yield f"{name}: {report.verdict.replace('_', ' ')}"
    for reason in report.reasons:
        if reason.severity != "info":
            yield f"{name}: {reason.message}"


def _untrusted(report: Report) -> Iterator[str]:
    """Yield why a report is no side of a comparison."""
    if report.verdict == "invalid":
        yield f"is invalid: {'; '.join(reason.message for reason in report.reasons[:1])}"
    load = report.conditions.foreign_load
    shares = (
        (("the usable CPU cores", load.cpu), ("the GPU", load.idle_gpu), ("the GPU", load.gpu))
        if load
        else ()
    )
    for what, share in shares:
        if share is not None and share > LIMITS["foreign_cpu"]:
            yield f"was disturbed: others used {share:.0%} of {what}; measure on a quiet board"


def _differing(reports: Sequence[Report]) -> dict[str, tuple[str, ...]]:
    found = {
        group: tuple(text for path in paths.split() for text in _differing_at(path, reports))
        for group, paths in _GROUPS.items()
    }
    return {group: texts for group, texts in found.items() if texts}


def _differing_at(path: str, reports: Sequence[Report]) -> Iterator[str]:
    values = [_get(report, path) for report in reports]
    if path == "bundle.sha256" and all(report.bundle.artifact_sha256 for report in reports):
        return  # of the file around what ran, which --record writes into
    if path.endswith("desktop"):  # Xwayland comes and goes with an app
        known = [set(value) - {"Xwayland"} for value in values if value is not None]
        values = ["a desktop runs" if value else "none" for value in known] or [None]
    if path.endswith("memory_mb"):
        least, most = min(v or 0 for v in values), max(v or 0 for v in values)
        values = values if least < (1 - _SAME_MEMORY) * most else [most]
    if not all(isinstance(value, dict) for value in values):
        yield from [f"{path}: {_listed(values)}"] if any(v != values[0] for v in values) else ()
        return
    changed: dict[str, int] = {}  # many cores have the same governor: said once
    for key in sorted(set().union(*values)):
        each = [value.get(key) for value in values if key in value or path != _SETTINGS]
        if any(value != each[0] for value in each):
            text = f"{path} {key.rpartition('/')[2]}: {_listed(each)}"
            changed[text] = changed.get(text, 0) + 1
    for text, count in changed.items():
        yield text if count == 1 else f"{text} ({count} times)"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _get(report: Report, path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    return value


def _basis(a: Sequence[Report], b: Sequence[Report], in_turns: bool) -> str:
    if in_turns:
        return f"between {len(a)} pairs of runs in turns"
    if min(len(a), len(b)) > 1:
        return f"between {len(a)} and {len(b)} runs"
    return (
        f"between the blocks of one run a side; how runs differ is not seen and taken to be "
        f"{RUN_SPREAD:.1%} or more: take several runs, or compare --on HOST A.fastseg B.fastseg"
    )


def _differences(
    a: Sequence[Report], b: Sequence[Report], in_turns: bool, metrics: Sequence[Name]
) -> Iterator[Difference]:
    sure: dict[str, bool] = {}
    for name in metrics:
        unit, value = _METRICS[name]
        left, right = _values(a, b, value)
        if not left or not right:
            continue
        level = _POWER if name == "mean_w" else _SPEED
        change, interval = log_ratio(left, right, level, in_turns, min(len(a), len(b)) == 1)
        leaves_zero_out = interval is not None and (interval[0] > 0 or interval[1] < 0)
        first = name in ("fps", "mean_w")
        allowed = first or sure["fps"] or (name == "j_per_frame" and sure["mean_w"])
        sure[name] = leaves_zero_out and allowed
        middle = math.exp(float(np.mean(np.log(left))))
        b_middle = middle * (1 + change)
        yield Difference(name, unit, middle, b_middle, change, interval, level, sure[name])


def _values(
    a: Sequence[Report], b: Sequence[Report], value: Callable[[Block], float | None]
) -> tuple[list[float], list[float]]:
    """Return a side's independent values: of its runs where both have several, else of blocks."""
    sides: list[list[float]] = []
    for reports in (a, b):
        runs = [
            [found for block in r.blocks if (found := value(block) or 0.0) > 0] for r in reports
        ]
        if any(len(run) < len(r.blocks) for run, r in zip(runs, reports, strict=True)):
            return [], []
        means = [math.exp(float(np.mean(np.log(run)))) for run in runs if run]
        sides.append(means if min(len(a), len(b)) > 1 else [x for run in runs for x in run])
    return sides[0], sides[1]


def log_ratio(
    a: Sequence[float], b: Sequence[float], level: float, in_turns: bool, single_run: bool
) -> tuple[float, Interval | None]:
    """Return by which share b is above a, and the interval of that.

    Student's t on logarithms: of pairs where the two took turns, else of two samples of one
    variance, for it is one board, and three values a side tell none of their own. None where there
    are fewer than three.
    """
    left, right = np.log(a), np.log(b)
    middle = float(right.mean() - left.mean())
    if min(len(left), len(right)) < LEAST:
        return math.expm1(middle), None
    beyond = 0.0
    if in_turns:
        pairs = right - left
        variance, degrees = float(pairs.var(ddof=1)) / len(pairs), len(pairs) - 1
    else:
        degrees = len(left) + len(right) - 2
        of_one = (len(left) * float(left.var()) + len(right) * float(right.var())) / degrees
        variance = of_one * (1 / len(left) + 1 / len(right))
        if single_run:  # runs vary beyond their blocks: both of them, by a spread that is assumed
            spread = max(RUN_SPREAD, _OF_BLOCKS * math.sqrt(of_one))
            beyond = t_quantile((1 + level) / 2, _MANY) * spread * math.sqrt(2)
    half = math.hypot(t_quantile((1 + level) / 2, degrees) * math.sqrt(variance), beyond)
    return math.expm1(middle), (math.expm1(middle - half), math.expm1(middle + half))


def _answer(runs: int, in_turns: bool, fps: Difference | None = None) -> tuple[Answer, str]:
    if fps and fps.interval is None and runs > 1:
        more = "with --repeats 3 or more" if in_turns else "a third run a side"
        return "cannot_tell", f"cannot tell: {runs} runs a side; measure {more}"
    if fps is None or fps.interval is None:
        blocks = f"fewer than {LEAST} blocks a side"
        return "cannot_tell", f"cannot tell: {blocks}; measure with --repeats 3 or more"
    low, high = fps.interval
    between = f"{fps.change:+.1%} frames a second, {low:+.1%} to {high:+.1%}"
    if fps.sure:
        return "different", f"B is {'faster' if fps.change > 0 else 'slower'}: {between}"
    if max(-low, high) <= _SMALL:
        return "no_difference", f"no difference above {_SMALL:.0%}: {between}"
    return "cannot_tell", f"cannot tell: {between}; more blocks would, or a quieter board"
