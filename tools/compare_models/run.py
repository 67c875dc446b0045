"""One run: what was asked for, measured part by part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare_models.accuracy import train_and_score, trainable
from compare_models.candidate import Candidate, OwnNetworks, open_candidates
from compare_models.export_cost import installed_targets, measure_exports
from compare_models.machine import describe_machine
from compare_models.results import Results, TorchRow
from compare_models.roofline import measure_peaks
from compare_models.scale import sweep_batches, sweep_sizes
from compare_models.speed import compare
from compare_models.timing import ratio_to
from compare_models.torch_ways import time_on
from compare_models.training_speed import measure_training
from fastseg import VARIANTS

SWEEP_ROUNDS = 8
TRAINING_ROUNDS = 6


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        networks: variants, checkpoints, package.module:factory or .onnx files; reference first.
        size: (width, height), pixels.
        classes: K.
        threads: of ONNX Runtime.
        rounds: how often each graph is timed.
        fast_tail: give the networks of others our class map too.
        own: what the factories' networks take and give.
        int8: also quantized.
        roofline: also this machine's peaks.
        torch_device: also by torch there; "" for not at all.
        data: to train on, also each network; None for not at all.
        minutes: of training, each.
        scale: also at other sizes, batches and threads.
        training: also training's images per second.
        exports: also the export of every target.
        command: for the record.
    """

    networks: list[str]
    size: tuple[int, int]
    classes: int
    threads: int
    rounds: int
    fast_tail: bool = False
    own: OwnNetworks | None = None
    int8: bool = False
    roofline: bool = False
    torch_device: str = ""
    data: str | None = None
    minutes: float = 0.0
    scale: bool = False
    training: bool = False
    exports: bool = False
    command: str = ""


def carry_out(plan: Plan, tell: Callable[[str], None]) -> tuple[Results, set[str]]:
    """Measure all of a plan; return the results and the names of our networks.

    Args:
        plan: what to measure.
        tell: takes a line about what is going on.
    """
    tell("exporting " + ", ".join(plan.networks))
    candidates = open_candidates(plan.networks, plan.size, plan.classes, plan.fast_tail, plan.own)
    results = Results(
        describe_machine(), plan.command, *plan.size, plan.classes, plan.threads, plan.rounds
    )
    if plan.roofline:
        results.peaks = measure_peaks(plan.threads)
    results.rows = compare(candidates, plan.threads, plan.rounds, plan.int8, results.peaks)
    _measure_torch(plan, candidates, results)
    _measure_accuracy(plan, candidates, results, tell)
    modules = [c.spec for c in candidates if c.graph is not None]
    variants = [spec for spec in modules if spec in VARIANTS]
    if plan.scale:
        results.sizes = sweep_sizes(modules, plan.classes, SWEEP_ROUNDS, own=plan.own)
        results.batches = sweep_batches(modules[-1], plan.classes, SWEEP_ROUNDS, own=plan.own)
    if plan.training:
        data = None if plan.minutes else plan.data
        results.training = measure_training(data, "small", 8, (288, 288), TRAINING_ROUNDS)
    if plan.exports:
        targets = installed_targets()
        results.exports = measure_exports(variants, targets, plan.size, plan.classes)
    return results, {candidate.name for candidate in candidates if candidate.is_ours}


def _measure_torch(plan: Plan, candidates: list[Candidate], results: Results) -> None:
    if not plan.torch_device:
        return
    times_ms = time_on(candidates, plan.torch_device, plan.rounds)
    results.torch_device = plan.torch_device
    first_ms = next(iter(times_ms.values()))
    results.torch_rows = [
        TorchRow(label, float(np.median(mine_ms)), ratio_to(first_ms, mine_ms))
        for label, mine_ms in times_ms.items()
    ]


def _measure_accuracy(
    plan: Plan, candidates: list[Candidate], results: Results, tell: Callable[[str], None]
) -> None:
    if plan.data is None or not plan.minutes:
        return
    with tempfile.TemporaryDirectory() as folder:
        for candidate in candidates:
            if not trainable(candidate):
                tell(f"{candidate.name} is trained already, or a file: not trained")
                continue
            tell(f"training {candidate.name} for {plan.minutes:g} minutes")
            score = train_and_score(
                candidate, plan.data, plan.minutes, Path(folder) / candidate.name, plan.own
            )
            results.accuracy.append(score)
