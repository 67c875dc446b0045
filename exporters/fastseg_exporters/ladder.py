"""From the precision asked for down to one that passes its gate.

Int8 that fails is tried again with the layers that do the damage in float, then the next
precision of the target's ladder. Every attempt goes into the manifest.
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastseg_exporters.job import Converted, Job
from fastseg_exporters.verify import Verification, failures

MAX_FLOAT_SHARE = 0.5  # int8 with more than half of its layers in float is not worth the name


class GateError(RuntimeError):
    """No precision of a target passed, or the first did not and the user said --strict."""


@dataclass(frozen=True)
class Tools:
    """How the ladder converts and verifies.

    Attributes:
        convert: runs a job in a folder of its own. Raises ConversionError.
        verify: runs an artifact on all verification scenes.
        verify_quickly: on a few of them, for ranking layers.
        tell: told what is happening, one line at a time.
    """

    convert: Callable[[Job], Converted]
    verify: Callable[[Job, Converted], Verification]
    verify_quickly: Callable[[Job, Converted], Verification]
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Rung:
    """An artifact that passed, what was tried before it, and its files by name in the bundle."""

    converted: Converted
    precision: str
    verification: Verification
    attempts: tuple[dict[str, Any], ...]
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
    attempts.append(
        {
            "precision": job.precision,
            "float_layers": list(job.keep_float),
            "failures": reasons,
            "verification": verification.to_table(),
        }
    )
    if not reasons:
        return Rung(converted, job.precision, verification, tuple(attempts))
    tools.tell(f"{job.target.name}: {job.precision} fails its gate: {'; '.join(reasons)}")
    shutil.rmtree(converted.folder, ignore_errors=True)
    return converted


def _keep_worst_in_float(
    job: Job, first: Converted, tools: Tools, attempts: list[dict[str, Any]]
) -> Rung | None:
    """Give the most harmful layers back to float: one, two, four ... until the gate passes."""
    ranking = rank_layers(job, first.artifact.layers, tools)
    attempts[-1]["layer_ranking"] = ranking
    names = [name for name, _ in ranking]
    count = 1
    while count <= len(names) * MAX_FLOAT_SHARE:
        tools.tell(f"{job.target.name}: int8 with {count} of {len(names)} layers in float")
        kept = dataclasses.replace(job, keep_float=tuple(names[:count]))
        rung = _attempt(kept, tools, attempts)
        if isinstance(rung, Rung):
            return rung
        count *= 2
    return None


def rank_layers(job: Job, layers: tuple[str, ...], tools: Tools) -> list[tuple[str, float]]:
    """Return the layers with what each gains when it alone stays in float, best first.

    The gain is in mIoU where there are labels, else in agreement with PyTorch.
    """
    gains = []
    for done, layer in enumerate(layers):
        tools.tell(f"{job.target.name}: layer {done + 1} of {len(layers)} alone in float")
        converted = tools.convert(dataclasses.replace(job, keep_float=(layer,)))
        found = tools.verify_quickly(job, converted)
        gains.append((layer, found.agreement if found.miou is None else found.miou))
        shutil.rmtree(converted.folder, ignore_errors=True)
    return sorted(gains, key=lambda gain: -gain[1])
