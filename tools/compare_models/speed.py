"""The comparison itself: every candidate's cost, and its time beside the others' in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fastseg_training.progress import show_progress

from compare_models.candidate import Candidate
from compare_models.cost import Cost, cost_of
from compare_models.engine import call_of, pinned
from compare_models.int8 import export_int8
from compare_models.memory import peak_memory_mb
from compare_models.node_times import node_times
from compare_models.roofline import Peaks
from compare_models.timing import Ratio, ratio_to, time_rounds


@dataclass(frozen=True)
class Row:
    """One graph's figures.

    Attributes:
        name: of the candidate.
        precision: "fp32" or "int8".
        cost: on paper.
        file_mb: size of the ONNX file, MB of 1e6 bytes.
        latency_ms: median; of this machine at this hour, unlike the ratios.
        fastest_ms: of all rounds.
        speedup: the reference's time over this one's.
        over_fp32: for int8: the same network's fp32 time over this one's.
        memory_mb: peak of a process that runs it, above its start.
        tail_share: of the time, after the last convolution.
        convolution_share: of the time.
        peak_share: of the machine's peak arithmetic, fastest round; None: not measured.
    """

    name: str
    precision: str
    cost: Cost
    file_mb: float
    latency_ms: float
    fastest_ms: float
    speedup: Ratio
    over_fp32: Ratio | None
    memory_mb: float
    tail_share: float
    convolution_share: float
    peak_share: float | None

    @property
    def label(self) -> str:
        """The name, with the precision where it is not fp32."""
        return self.name if self.precision == "fp32" else f"{self.name} {self.precision}"


def compare(
    candidates: Sequence[Candidate],
    threads: int,
    rounds: int,
    int8: bool = False,
    peaks: Peaks | None = None,
) -> list[Row]:
    """Measure candidates against the first of them.

    Args:
        candidates: the reference first.
        threads: of ONNX Runtime.
        rounds: how often each is timed.
        int8: measure the int8 form of every torch module too.
        peaks: of this machine, for the share of the peak.
    """
    models = {(candidate.name, "fp32"): candidate.model for candidate in candidates}
    if int8:
        torch_modules = [c for c in candidates if c.graph is not None]
        for candidate in show_progress(torch_modules, "quantizing", len(torch_modules)):
            assert candidate.graph is not None
            models[candidate.name, "int8"] = export_int8(candidate.graph)
    feeds = {candidate.name: candidate.feed for candidate in candidates}
    calls = {" ".join(key): call_of(model, feeds[key[0]], threads) for key, model in models.items()}
    with pinned():
        times_ms = time_rounds(calls, rounds)
    calls.clear()  # their sessions hold memory
    reference_ms = times_ms[f"{candidates[0].name} fp32"]
    rows = []
    for (name, precision), model in show_progress(models.items(), "profiling", len(models)):
        profile = node_times(model, feeds[name], threads)
        mine_ms = times_ms[f"{name} {precision}"]
        cost = cost_of(models[name, "fp32"])
        float_ms = times_ms[f"{name} fp32"]
        rows.append(
            Row(
                name,
                precision,
                cost,
                model.ByteSize() / 1e6,
                float(np.median(mine_ms)),
                float(mine_ms.min()),
                ratio_to(reference_ms, mine_ms),
                ratio_to(float_ms, mine_ms) if precision == "int8" else None,
                peak_memory_mb(model, feeds[name], threads),
                profile.tail_share,
                profile.convolution_share,
                _peak_share(peaks, cost, float(mine_ms.min())),
            )
        )
    return rows


def _peak_share(peaks: Peaks | None, cost: Cost, latency_ms: float) -> float | None:
    return None if peaks is None else peaks.arithmetic_ms(cost) / latency_ms
