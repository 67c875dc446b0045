"""One run: what was asked for, measured part by part, and all that came out, as JSON."""

import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import without_nan

from compare_models.accuracy import Accuracy, scored_split, train_and_score, trainable
from compare_models.candidate import Candidate, OwnNetworks, open_candidates
from compare_models.cost import Peaks, measure_peaks
from compare_models.export_cost import ExportCost, installed_targets, measure_exports
from compare_models.front import Scored, measure_front
from compare_models.scale import Point, sweep_batches, sweep_sizes
from compare_models.speed import GraphSpeed, compare
from compare_models.timing import Ratio, ratio_to
from compare_models.torch_ways import time_on
from compare_models.training_speed import TrainingSpeed, measure_training
from fastseg import VARIANTS
from fastseg.command_options import (
    ColorOption,
    NormalizationOption,
    OutputNameOption,
    ThresholdOption,
)
from fastseg.data import open_dataset
from fastseg.own_code import describe_error
from fastseg.pretrained import names

FIRST_FOUR = ["nano", "small", "base", "large"]
SWEEP_ROUNDS = 8
TRAINING_ROUNDS = 6


@dataclass(frozen=True)
class TorchRow:
    """One torch module run by torch."""

    label: str
    latency_ms: float
    speedup: Ratio  # against the first of them


@dataclass
class Results:
    """What was asked for; the rest stays empty."""

    machine: dict[str, str]  # from describe_machine()
    command: str  # that made this
    width: int  # of the input, pixels
    height: int  # of the input, pixels
    classes: int  # K
    threads: int  # of ONNX Runtime
    rounds: int  # how often each graph was timed
    rows: list[GraphSpeed] = field(default_factory=list)  # the comparison, the reference first
    peaks: Peaks | None = None
    torch_device: str = ""
    torch_rows: list[TorchRow] = field(default_factory=list)
    sizes: list[Point] = field(default_factory=list)
    batches: list[Point] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    front: list[Scored] = field(default_factory=list)
    training: TrainingSpeed | None = None
    exports: list[ExportCost] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # why parts of it are missing, by name

    def to_json(self) -> str:
        """Return one JSON document; what could not be had is null."""
        return json.dumps(without_nan(dataclasses.asdict(self)), indent=1)


@dataclass(frozen=True)
class ComparisonPlan:
    """Compare networks: same size, same export, class map out, timed in turn in one process.

    compare_models rivals.nets:ddrnet_23_slim nano small base --int8 --roofline -o comparison

    A factory is called with num_classes if it takes that; the current folder is searched for its
    module. FastSegNet is exported with its own class map, others with bilinear upsampling and
    argmax as their users do (--fast-tail: with ours).
    """

    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="nano, small, base, large, lite, a checkpoint, package.module:factory, or a .onnx "
            "file; --score: also a .toml of how a network of others is used (docs/speed.md). The "
            "first is the reference. Default: the first four."
        ),
    ] = None
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the input.")] = "1024x512"
    classes: Annotated[int, typer.Option(min=2, max=255, help="Number of classes.")] = 19
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 2
    rounds: Annotated[int, typer.Option(min=3, help="How often each network is timed.")] = 20
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder for report.html and PNGs.")
    ] = None
    fast_tail: Annotated[
        bool, typer.Option("--fast-tail", help="Give other networks our class map too.")
    ] = False
    normalization: NormalizationOption = None
    color: ColorOption = None
    output_name: OutputNameOption = None
    threshold: ThresholdOption = None
    int8: Annotated[bool, typer.Option("--int8", help="int8 against fp32.")] = False
    roofline: Annotated[bool, typer.Option("--roofline", help="Shares of this machine's peak.")] = (
        False
    )
    scale: Annotated[
        bool, typer.Option("--scale", help="128x256 to 2048x1024, batches, threads 1 and 2.")
    ] = False
    torch: Annotated[
        str | None, typer.Option(help="Also by torch on cpu or cuda. [cuda if there]")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(metavar="KIND:PATH", help="Train each on this, --minutes long, or --score."),
    ] = None
    score: Annotated[
        bool,
        typer.Option(
            "--score", help="Instead: mIoU of trained networks on --data, against ms for a frame."
        ),
    ] = False
    minutes: Annotated[float, typer.Option(min=0, help="Of training, each network.")] = 0
    train_speed: Annotated[
        bool, typer.Option("--train-speed", help="Images/s against a plain DataLoader loop.")
    ] = False
    export_cost: Annotated[
        bool, typer.Option("--export-cost", help="Seconds and memory of every target's export.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False

    @property
    def own(self) -> OwnNetworks:
        """Return what the factories' networks take and give."""
        return OwnNetworks(self.normalization, self.color, self.output_name, self.threshold)


def carry_out(plan: ComparisonPlan, tell: Callable[[str], None]) -> tuple[Results, set[str]]:
    """Measure all of a plan, telling what is going on; return the names of our networks too."""
    if plan.score and plan.data:
        return score_all(plan, plan.data, tell)
    networks, size = plan.networks or FIRST_FOUR, parse_size(plan.size)
    _check_data(plan)
    tell("exporting " + ", ".join(networks))
    candidates = open_candidates(networks, size, plan.classes, plan.fast_tail, plan.own)
    results = begin(plan, size, plan.classes)
    if plan.roofline:
        results.peaks = measure_peaks(plan.threads)
    results.rows = compare(candidates, plan.threads, plan.rounds, plan.int8, results.peaks)
    part = partial(_part, results, tell)
    with part("torch"):
        _measure_torch(plan, candidates, results)
    _measure_accuracy(plan, candidates, results, tell)
    modules = [c.spec for c in candidates if c.graph is not None]
    if plan.torch and not modules:
        tell("--torch is for torch modules: an ONNX file runs in ONNX Runtime alone")
    variants = [spec for spec in modules if spec in VARIANTS]
    if plan.scale and not modules:
        tell("--scale is for torch modules: an ONNX file has one size")
    elif plan.scale:
        with part("sizes"):
            for point in sweep_sizes(modules, plan.classes, SWEEP_ROUNDS, own=plan.own):
                results.sizes.append(point)  # those before a size that fails are kept
        with part("batches"):
            results.batches = sweep_batches(modules[-1], plan.classes, SWEEP_ROUNDS, own=plan.own)
    if plan.train_speed:
        data = None if plan.minutes else plan.data
        with part("training speed"):
            results.training = measure_training(data, "small", 8, (288, 288), TRAINING_ROUNDS)
    if plan.export_cost and not variants:
        tell(f"--export-cost is for {', '.join(VARIANTS)}: none of them is compared")
    elif plan.export_cost:
        with part("export cost"):
            targets = installed_targets()
            results.exports = measure_exports(variants, targets, size, plan.classes)
    return results, {candidate.name for candidate in candidates if candidate.is_ours}


def score_all(
    plan: ComparisonPlan, data: str, tell: Callable[[str], None]
) -> tuple[Results, set[str]]:
    """Score trained networks against their time for a frame; return the names of ours too."""
    networks, samples = plan.networks or names(), open_dataset(data, "test")
    results = begin(plan, samples[0].label_HW.shape[::-1], len(samples.classes))
    results.front = measure_front(networks, data, plan.threads, plan.rounds, plan.int8, tell)
    return results, {scored.name for scored in results.front if scored.is_ours}


def begin(plan: ComparisonPlan, size: tuple[int, int], classes: int) -> Results:
    """Return results without any yet, at (width, height) pixels."""
    command = " ".join(["compare_models", *sys.argv[1:]])
    return Results(describe_machine(), command, *size, classes, plan.threads, plan.rounds)


def _check_data(plan: ComparisonPlan) -> None:
    """Open what is trained on after all else was measured, and scored on after the training."""
    if plan.data is not None:
        open_dataset(plan.data, "train")
        if plan.minutes:
            scored_split(plan.data)


@contextmanager
def _part(results: Results, tell: Callable[[str], None], name: str) -> Iterator[None]:
    """Keep what was measured before where a part fails, and tell why it is missing."""
    try:
        yield
    except Exception as error:  # networks of others raise what comes
        results.failed[name] = describe_error(error)
        tell(f"{name}: left out: {results.failed[name]}")


def _measure_torch(plan: ComparisonPlan, candidates: list[Candidate], results: Results) -> None:
    device = plan.torch or ("cuda" if torch.cuda.is_available() else "")
    if not device or all(candidate.graph is None for candidate in candidates):
        return
    times_ms = time_on(candidates, device, plan.rounds)
    results.torch_device = device
    first_ms = next(iter(times_ms.values()))
    results.torch_rows = [
        TorchRow(label, float(np.median(mine_ms)), ratio_to(first_ms, mine_ms))
        for label, mine_ms in times_ms.items()
    ]


def _measure_accuracy(
    plan: ComparisonPlan, candidates: list[Candidate], results: Results, tell: Callable[[str], None]
) -> None:
    if plan.data is None or not plan.minutes:
        return
    with tempfile.TemporaryDirectory() as folder:
        for candidate in candidates:
            if not trainable(candidate):
                tell(f"{candidate.name} is trained already, or a file: not trained")
                continue
            tell(f"training {candidate.name} for {plan.minutes:g} minutes")
            with _part(results, tell, f"training {candidate.name}"):
                score = train_and_score(
                    candidate, plan.data, plan.minutes, Path(folder) / candidate.name, plan.own
                )
                results.accuracy.append(score)


PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def describe_machine() -> dict[str, str]:
    """Return processor, cores, instructions that matter, GPU and versions."""
    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    facts = {
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "int8 dot products": "yes" if {"avx512_vnni", "avx_vnni", "asimddp"} & flags else "no",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return facts | {package: version(package) for package in PACKAGES}


def _cpuinfo() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; nothing where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
