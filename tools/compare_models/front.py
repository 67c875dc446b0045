"""The front: what trained networks score on labelled images against their time for a frame.

Everybody goes the way of a device: exported by fastseg-export, run by the runtime, a frame of the
data's own size in, a class map of that size out, whatever size the network itself works at.

Shape letters: N images, K classes of the data, L = K + 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration
from fastseg_exporters.export import Plan, export_bundle
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array, confusion_matrix, iou_per_class, labelled_miou
from fastseg_runtime.arrays.stats import bootstrap, interval95
from fastseg_targets.target import select_targets

from compare_models.candidate import unlike
from compare_models.rival import source_of
from compare_models.timing import Ratio, ratio_to, time_rounds
from fastseg import FastSegNet
from fastseg.data import Dataset, open_dataset
from fastseg.progress import show_progress

RESAMPLES = 1000
NEIGHBOURS = 10  # images of a drive that are resampled together: they show the same street


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One network in one precision: the columns of the front.

    Attributes:
        name: short, unlike the others'.
        precision: what the export gave: "fp32", "int8", or a rung between.
        float_layers: how many layers of int8 the gate gave back to float.
        is_ours: whether it is a FastSegNet.
        size: WxH of its input, pixels.
        file_bytes: of the artifact.
        images: that were scored.
        miou: over the classes that occur in the labels or in what it gives.
        miou_ci95: over images, resampled with their neighbours; None where none has a label.
        iou: by class; None where it does not occur.
        latency_ms: median of infer(), a frame in and its class map out, on this machine.
        speedup: the first network's time over this one's.
    """

    name: str
    precision: str
    float_layers: int
    is_ours: bool
    size: str
    file_bytes: int
    images: int
    miou: float
    miou_ci95: tuple[float, float] | None
    iou: dict[str, float | None]
    latency_ms: float
    speedup: Ratio

    @property
    def label(self) -> str:
        """The name, with the precision where it is not fp32, and what of it stays in float."""
        kept = f", {self.float_layers} in float" if self.float_layers else ""
        return self.name if self.precision == "fp32" else f"{self.name} {self.precision}{kept}"


@dataclass(frozen=True)
class Entrant:
    """One artifact, open, and how its ids become those of the data; see Scored."""

    name: str
    precision: str
    float_layers: int
    is_ours: bool
    session: RealtimeSegmentation
    file_bytes: int
    lookup_256: Array

    @property
    def label(self) -> str:
        """The name and the precision."""
        return f"{self.name} {self.precision}"


def measure_front(
    specs: Sequence[str],
    data: str,
    threads: int,
    rounds: int,
    int8: bool,
    tell: Callable[[str], None],
) -> list[Scored]:
    """Score and time trained networks; the first is the one that times are compared with.

    Args:
        specs: checkpoints, names that ship, ONNX files, or a Rival's .toml.
        data: whose test split is scored on and whose train split gives int8 its ranges.
        threads: of the engine.
        rounds: how often each is timed.
        int8: their int8 artifacts too.
        tell: told what happens.

    Raises:
        CheckpointError, DataError, ConfigError, ValueError: a network cannot be had, exported, or
            does not know the classes of the data.
    """
    samples = open_dataset(data, "test")
    targets = ["cpu-fp32", *(["cpu-int8"] if int8 else [])]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as sessions:
        entrants: list[Entrant] = []
        for number, spec in enumerate(specs):
            bundle = Path(folder) / f"{number}.fastseg"
            taken = {entrant.name for entrant in entrants}
            for entrant in _enter(spec, samples, data, targets, bundle, threads, tell, taken):
                sessions.callback(entrant.session.close)
                entrants.append(entrant)
        frame_HW3 = samples[0].image_HW3
        calls = {
            f"{number}": partial(entrant.session.infer, frame_HW3)
            for number, entrant in enumerate(entrants)
        }
        times_ms = list(time_rounds(calls, rounds).values())
        return [
            score(entrant, samples, ratio_to(times_ms[0], mine_ms), float(np.median(mine_ms)))
            for entrant, mine_ms in zip(entrants, times_ms, strict=True)
        ]


def _enter(
    spec: str,
    samples: Dataset,
    data: str,
    targets: list[str],
    bundle: Path,
    threads: int,
    tell: Callable[[str], None],
    taken: set[str],
) -> Iterator[Entrant]:
    source, lookup_256 = source_of(spec, samples)
    network = source.open()
    theirs, wanted = ([c.name for c in x.classes] for x in (network.info, samples))
    if lookup_256 is None:
        lookup_256 = _by_name(theirs, wanted, spec)
    recipe = Recipe(source, Calibration(data))
    # The gate knows no names: of other classes, or in another order, it compares answers alone.
    judged = data if source.classes is None and theirs == wanted else None
    plan = Plan(recipe, tuple(select_targets(targets)), bundle, judged)
    outcome = export_bundle(plan, tell)
    if not outcome.manifest.artifacts:
        raise ValueError(f"{spec} cannot be compared: {'; '.join(outcome.failed.values())}")
    for target, why in outcome.failed.items():  # its other precision is compared all the same
        tell(f"{spec}: {target} is left out: {why}")
    name = unlike(Path(spec).stem if spec.endswith(".toml") else network.name, taken)
    for artifact in outcome.manifest.artifacts:
        if artifact.target == "cpu-int8" and artifact.precision == "fp32":
            tell(f"{spec}: int8 fails its gate; no int8 row")
            continue
        session = RealtimeSegmentation(bundle, target=artifact.target, threads=threads)
        yield Entrant(
            name,
            artifact.precision,
            len(artifact.extra.get("float_layers", ())),
            isinstance(network.model, FastSegNet),
            session,
            sum(file.bytes for file in artifact.files),
            lookup_256,
        )


def _by_name(names: Sequence[str], wanted: Sequence[str], spec: str) -> Array:
    """Return the ids of the data for those of a network with classes of the same names, K for none.

    Raises:
        ValueError: the data have a class that it does not know.
    """
    if missing := sorted(set(wanted) - set(names)):
        raise ValueError(
            f"{spec} does not know {', '.join(missing)}; name a .toml with a class_map for it"
        )
    lookup_256 = np.full(256, len(wanted), np.uint8)
    for index, name in enumerate(names):
        if name in wanted:
            lookup_256[index] = wanted.index(name)
    return lookup_256


def score(entrant: Entrant, samples: Dataset, speedup: Ratio, latency_ms: float) -> Scored:
    """Return how one artifact does on labelled images; its times are taken elsewhere."""
    names = [c.name for c in samples.classes]
    confusions = []
    for index in show_progress(range(len(samples)), f"scoring {entrant.label}", len(samples)):
        sample = samples[index]
        ids_HW = entrant.lookup_256[entrant.session.infer(sample.image_HW3)]
        # The last column holds pixels of classes that the data do not know: they are misses.
        confusions.append(confusion_matrix(ids_HW, sample.label_HW, len(names) + 1))
    confusions_NLL = np.stack(confusions)

    whole_LL = confusions_NLL.sum(0)
    block = max(1, min(NEIGHBOURS, len(samples) // 4))
    given_L, labelled_L = whole_LL.any(0), whole_LL.any(1)
    strays = int(np.count_nonzero((given_L & ~labelled_L)[:-1]))
    replicates = bootstrap(
        lambda picked_N: _miou(confusions_NLL[picked_N].sum(0), strays),
        len(samples),
        RESAMPLES,
        block,
    )
    finite = replicates[np.isfinite(replicates)]
    return Scored(
        name=entrant.name,
        precision=entrant.precision,
        float_layers=entrant.float_layers,
        is_ours=entrant.is_ours,
        size=f"{entrant.session.input.width}x{entrant.session.input.height}",
        file_bytes=entrant.file_bytes,
        images=len(samples),
        miou=_miou(whole_LL, strays),
        miou_ci95=interval95(finite) if len(finite) else None,
        iou={
            name: None if np.isnan(iou) else float(iou)
            for name, iou in zip(names, iou_per_class(whole_LL)[:-1], strict=True)
        },
        latency_ms=latency_ms,
        speedup=speedup,
    )


def _miou(confusion_LL: Array, strays: int) -> float:
    """Return the mean IoU of the data or of a resample; NaN without a label.

    Of all the data it is what fastseg-train and remote_bench tell: the mean over the classes that
    occur in the labels or in what the network gives. A resample is a mean over the same classes.
    Left out are those that it has no label of: one stray pixel would count as an IoU of 0.

    Args:
        confusion_LL: its last column holds pixels of classes that the data do not know.
        strays: how many classes the network gives that the data label nowhere. Their IoU is 0 in
            the whole, so it is in each resample, whether or not that has such a pixel.
    """
    labelled = int(np.count_nonzero(confusion_LL.sum(1)))
    return labelled_miou(confusion_LL) * labelled / max(1, labelled + strays)
