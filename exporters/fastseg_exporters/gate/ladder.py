"""From the precision asked for down to one that passes its gate.

Int8 that fails is tried again with the layers that do the damage in float, then the next
precision of the target's ladder. Every attempt goes into the manifest.
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastseg_exporters.convert.job import Converted, Job
from fastseg_exporters.convert.progress import Progressing, silent
from fastseg_exporters.gate.verify import (
    Verification,
    failures,
    on_agreement_alone,
    selftest_failures,
)

RANKING_IMAGES = 8  # to calibrate on while layers are ranked
MAX_FLOAT_SHARE = 0.5  # int8 with more than half of its layers in float is not worth the name


class GateError(RuntimeError):
    """No precision of a target passed, or the first did not and the user said --strict."""


@dataclass(frozen=True)
class Tools:
    """How the ladder converts and verifies.

    Attributes:
        convert: runs a job in a folder of its own. Raises ConversionError.
        convert_each: the same once for each of the layers, which alone stays in float.
        verify: runs an artifact on all verification scenes.
        likeness: how alike to PyTorch an artifact is on a few of them, 1 being the same.
        tell: told what is happening, one line at a time.
        progress: told how far it is.
    """

    convert: Callable[[Job], Converted]
    convert_each: Callable[[Job, tuple[str, ...]], list[Converted]]
    verify: Callable[[Job, Converted], Verification]
    likeness: Callable[[Job, Converted], float]
    tell: Callable[[str], None]
    progress: Progressing = silent


@dataclass(frozen=True)
class Rung:
    """An artifact that passed, what was tried before it, and its files by name in the bundle."""

    converted: Converted
    precision: str
    verification: Verification
    attempts: tuple[dict[str, Any], ...]
    float_layers: tuple[str, ...] = ()  # of int8
    contents: dict[str, bytes] = field(default_factory=dict)


def climb_down(job: Job, tools: Tools, strict: bool = False) -> Rung:
    """Convert and verify at each precision of the target's ladder until one passes.

    Args:
        job: its precision is replaced by those of job.target.ladder.
        tools: see Tools.
        strict: stop at the first failure instead.

    Raises:
        GateError: with the numbers of every attempt.
        ConversionError: the converter failed.
    """
    attempts: list[dict[str, Any]] = []
    for precision in job.target.ladder:
        rung_job = dataclasses.replace(job, precision=precision)
        rung = _try_precision(rung_job, tools, attempts, strict)
        if rung is not None:
            return rung
        if strict:
            break
    lines = [f"  {a['precision']}: {'; '.join(a['failures'])}" for a in attempts]
    raise GateError("\n".join([f"{job.target.name} did not pass its gate:", *lines]))


def _try_precision(
    job: Job, tools: Tools, attempts: list[dict[str, Any]], strict: bool
) -> Rung | None:
    first = _attempt(job, tools, attempts)
    if isinstance(first, Rung):
        return first
    if strict or not first.artifact.layers:
        return None
    return _keep_worst_in_float(job, first, tools, attempts)


def _attempt(job: Job, tools: Tools, attempts: list[dict[str, Any]]) -> Rung | Converted:
    """Return the rung if it passes, else what was converted; record it either way."""
    converted = tools.convert(job)
    verification = tools.verify(job, converted)
    reasons = failures(verification, job.target.gate, job.precision)
    reasons += selftest_failures(verification, job.precision)
    attempts.append(
        {
            "precision": job.precision,
            "float_layers": list(job.keep_float),
            "failures": reasons,
            "verification": verification.to_table(),
        }
    )
    if not reasons:
        if on_agreement_alone(verification):
            tools.tell(
                f"{job.target.name}: {job.precision} judged on agreement with PyTorch alone, "
                f"{verification.agreement:.1%} of the pixels"
            )
        return Rung(converted, job.precision, verification, tuple(attempts), job.keep_float)
    tools.tell(f"{job.target.name}: {job.precision} fails its gate: {'; '.join(reasons)}")
    shutil.rmtree(converted.folder, ignore_errors=True)
    return converted


def _keep_worst_in_float(
    job: Job, first: Converted, tools: Tools, attempts: list[dict[str, Any]]
) -> Rung | None:
    """Give the most harmful layers back to float, and no more of them than the gate asks for.

    One, two, four ... until the gate passes, then halving between the last two counts.
    """
    ranking = rank_layers(job, first.artifact.layers, tools)
    attempts[-1]["layer_ranking"] = [[name, round(likeness, 5)] for name, likeness in ranking]
    names = tuple(name for name, _ in ranking)

    def passes(count: int) -> Rung | None:
        tools.tell(f"{job.target.name}: int8 with {count} of {len(names)} layers in float")
        kept = dataclasses.replace(job, keep_float=names[:count])
        rung = _attempt(kept, tools, attempts)
        return rung if isinstance(rung, Rung) else None

    too_few, count, best = 0, 1, None
    while best is None and count <= len(names) * MAX_FLOAT_SHARE:
        best = passes(count)
        if best is None:
            too_few, count = count, 2 * count
    if best is None:
        return None
    while count - too_few > 1:
        middle = (too_few + count) // 2
        rung = passes(middle)
        if rung is None:
            too_few = middle
        else:
            count, best = middle, rung
    return dataclasses.replace(best, attempts=tuple(attempts))


def rank_layers(job: Job, layers: tuple[str, ...], tools: Tools) -> list[tuple[str, float]]:
    """Return each layer with how alike to PyTorch int8 is when it alone stays in float.

    Best first: the layer whose rounding does most harm. All are converted in one child process,
    with ranges from a few images, which are the same for all.
    """
    tools.tell(f"{job.target.name}: ranking {len(layers)} layers, each alone in float")
    few = min(job.calibration.count, RANKING_IMAGES)
    quick = dataclasses.replace(job, calibration=dataclasses.replace(job.calibration, count=few))
    ranking = []
    for done, converted in enumerate(tools.convert_each(quick, layers)):
        tools.progress(f"{job.target.name}: ranking layers", done, len(layers))
        ranking.append((layers[done], tools.likeness(job, converted)))
        shutil.rmtree(converted.folder, ignore_errors=True)
    return sorted(ranking, key=lambda entry: -entry[1])
