"""The front: what trained networks score on labelled images against their time for a frame.

Everybody goes the way of a device: exported by fastseg-export, run by the runtime, a frame of the
data's own size in, a class map of that size out, whatever size the network itself works at.

Shape letters: N images, K classes of the data, C of a network.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.metrics import Array, confusion_matrix, iou_per_class, labelled_miou
from fastseg_runtime.arrays.stats import bootstrap, interval95
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_targets.target import select_targets
from fastseg_training.class_map import listed, read_class_map

from compare_models.candidate import unlike
from compare_models.timing import Ratio, ratio_to, time_rounds
from fastseg import FastSegNet, open_network, pretrained
from fastseg.backend_onnx import OnnxFile
from fastseg.checkpoint import CheckpointError, read_info
from fastseg.data import Dataset, open_dataset
from fastseg.network import is_factory, is_onnx
from fastseg.normalization import Normalization, parse_normalization
from fastseg.outputs import Reading
from fastseg.progress import show_progress

RESAMPLES = 1000
NEIGHBOURS = 10  # images of a drive that are resampled together: they show the same street
MAX_BYTES = 100_000


@dataclass(frozen=True)
class Rival:
    """A TOML file that says how a network of others is used; "" is what open_network takes.

        network = "rivals:fddwnet"      # package.module:factory, or an ONNX file
        weights = "fddwnet.pth"
        size = "960x720"                # of its input
        normalization = "imagenet"
        class_map = "cityscapes-to-camvid"

    Paths are relative to the file.

    Attributes:
        network: as every command takes it.
        weights: of a factory's network: a state dict, or the name of shipped weights.
        size: WxH of its input, pixels; "": what the file fixes, else of the data's images.
        normalization: what pictures are normalised with: a name or a TOML file.
        color: "rgb" or "bgr".
        output_name: of several outputs, the path of the logits.
        class_map: which of its classes make up those of the data; "": it has the data's own.
        threshold: of the probability above which one logit means the second class.
        fit: "stretch" or "letterbox"; "": what it says itself, else stretch.
    """

    network: str
    weights: str = ""
    size: str = ""
    normalization: str = ""
    color: str = ""
    output_name: str = ""
    class_map: str = ""
    threshold: float = Reading.threshold
    fit: str = ""


@dataclass(frozen=True)
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
            _scored(entrant, samples, ratio_to(times_ms[0], mine_ms), float(np.median(mine_ms)))
            for entrant, mine_ms in zip(entrants, times_ms, strict=True)
        ]


def read_rival(spec: str) -> Rival:
    """Return how a network is used: what its .toml says, else as it is.

    Raises:
        ValueError: the file says something else.
    """
    if not spec.endswith(".toml"):
        return Rival(spec)
    path = Path(spec)
    try:
        with path.open("rb") as file:
            return from_table(Rival, tomllib.loads(file.read(MAX_BYTES).decode("utf-8")), "")
    except OSError as error:
        raise ValueError(f"cannot read {spec}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{spec} does not say how a network is used: {error}") from error


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
    source, lookup_256 = _source(spec, samples)
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


def _source(spec: str, samples: Dataset) -> tuple[NetworkSource, Array | None]:
    """Return how a network is opened, and where its ids go if a class map says that."""
    rival = read_rival(spec)
    folder = Path(spec).parent if spec.endswith(".toml") else Path()
    at_hand, weights = _beside(folder, rival.network), _beside(folder, rival.weights)
    own = is_factory(at_hand) or is_onnx(at_hand)
    file = OnnxFile(Path(at_hand)) if is_onnx(at_hand) and Path(at_hand).is_file() else None
    size = parse_size(rival.size) if rival.size else None
    normalization = parse_normalization(
        _beside(folder, rival.normalization) or None, rival.color or None
    )
    if file is not None:
        _check_normalization(spec, rival, file, normalization)
    known = _own_names(at_hand, weights, file)
    classes: tuple[ClassInfo, ...] | None = None
    lookup_256: Array | None = None
    if rival.class_map:
        lookup_256 = np.zeros(256, np.uint8)
        class_map = read_class_map(
            _beside(folder, rival.class_map), [c.name for c in samples.classes]
        )
        if known not in ([], list(class_map.teacher)):
            raise ValueError(
                f"{spec} knows {listed(known)}, {rival.class_map} has "
                f"{listed(class_map.teacher)}; its `teacher` has to name the same in their order"
            )
        classes = numbered_classes(len(class_map.teacher))
        target_C = np.array(class_map.target_C)
        lookup_256[: len(classes)] = np.where(target_C < 0, len(samples.classes), target_C)
    elif own and not known:
        classes = samples.classes
    source = NetworkSource(
        at_hand,
        classes,
        weights or None,
        size or (_default_size(samples, file) if own else None),
        normalization,
        rival.output_name,
        rival.threshold,
        rival.fit or None,
    )
    return source, lookup_256


def _check_normalization(
    spec: str, rival: Rival, file: OnnxFile, normalization: Normalization | None
) -> None:
    try:
        file.check_normalization(normalization)
    except CheckpointError as error:
        if file.port.takes_bytes:
            raise ValueError(
                f'{spec} says normalization = "{rival.normalization}", but {rival.network} takes '
                "bytes as they are; leave that key out"
            ) from error
        raise ValueError(
            f"{spec} takes float pictures and does not say how they are normalised: name a .toml "
            f'with network = "{rival.network}" and normalization = "imagenet" (docs/speed.md)'
        ) from error


def _default_size(samples: Dataset, file: OnnxFile | None) -> tuple[int, int]:
    """Return the (width, height) that a file fixes, a side that it leaves open as the data's."""
    height, width = samples[0].image_HW3.shape[:2]
    if file is None:
        return width, height
    return file.port.width or width, file.port.height or height


def _own_names(network: str, weights: str, file: OnnxFile | None) -> list[str]:
    """Return the classes that a file names, in their order; none where it numbers or has none."""
    classes: tuple[ClassInfo, ...] = ()
    if is_factory(network):
        header = read_info(pretrained.file_of(weights)) if weights else None
        classes = header.classes if header else ()
    elif file is not None:
        classes = file.manifest.classes if file.manifest else ()
    elif not is_onnx(network):
        classes = open_network(network).info.classes
    names, numbered = ([c.name for c in x] for x in (classes, numbered_classes(len(classes))))
    return [] if names == numbered else names


def _beside(folder: Path, named: str) -> str:
    """Return the file of a folder that is named, else the name: of something that ships."""
    return str(folder / named) if named and (folder / named).is_file() else named


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


def _scored(entrant: Entrant, samples: Dataset, speedup: Ratio, latency_ms: float) -> Scored:
    names = [c.name for c in samples.classes]
    confusions = []
    for index in show_progress(range(len(samples)), f"scoring {entrant.label}", len(samples)):
        sample = samples[index]
        ids_HW = entrant.lookup_256[entrant.session.infer(sample.image_HW3)]
        # The last column holds pixels of classes that the data do not know: they are misses.
        confusions.append(confusion_matrix(ids_HW, sample.label_HW, len(names) + 1))
    confusions_NLL = np.stack(confusions)  # L is K + 1

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
        entrant.name,
        entrant.precision,
        entrant.float_layers,
        entrant.is_ours,
        f"{entrant.session.input.width}x{entrant.session.input.height}",
        entrant.file_bytes,
        len(samples),
        _miou(whole_LL, strays),
        interval95(finite) if len(finite) else None,
        {
            name: None if np.isnan(iou) else float(iou)
            for name, iou in zip(names, iou_per_class(whole_LL)[:-1], strict=True)
        },
        latency_ms,
        speedup,
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
