"""A network to compare, by any of its names, as one ONNX graph that gives a class map."""

from __future__ import annotations

import sys
from collections.abc import Container
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from fastseg_exporters.onnx.to_onnx import FloatGraph, take_bytes, to_onnx
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import numbered_classes
from torch import Tensor, nn

from compare_models.onnx_file import feed_for, read_onnx
from fastseg import VARIANTS, CheckpointError, DeployGraph, FastSegNet, Network, open_network
from fastseg.data import open_dataset
from fastseg.deploy import PaddedLogits
from fastseg.network import is_factory, is_onnx
from fastseg.normalization import parse_normalization
from fastseg.outputs import Reading

STREET = "synthetic:{width}x{height}"


@dataclass(frozen=True)
class OwnNetworks:
    """What a user says of the networks that are factories; None is what open_network takes.

    Attributes:
        normalization: "imagenet", "unit", "centred" or a TOML file.
        color: "rgb" or "bgr".
        output_name: of several outputs, the path of the logits.
        threshold: of one logit, the probability above which it means the second class.
    """

    normalization: str | None = None
    color: str | None = None
    output_name: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One network at one size."""

    name: str  # short, unlike the others'
    spec: str  # as the user named it
    graph: DeployGraph | None  # the deploy graph of a torch module; None for an ONNX file
    model: onnx.ModelProto  # float32 ONNX, class map out
    feed: dict[str, Array]  # an input for it

    @property
    def is_ours(self) -> bool:
        """Return whether this is a FastSegNet."""
        return self.graph is not None and isinstance(self.graph.core, PaddedLogits)


class ResizeArgMax(nn.Module):
    """The class map as everybody exports it: bilinear to full size, then argmax."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.ids = graph.class_map

    def forward(self, logits_NKhw: Tensor) -> Tensor:
        """Return uint8 ids (N, H, W)."""
        return self.ids(logits_NKhw)


def open_candidates(
    specs: list[str],
    size: tuple[int, int],
    classes: int,
    fast_tail: bool = False,
    own: OwnNetworks | None = None,
) -> list[Candidate]:
    """Open and export networks.

    Args:
        specs: variants of FastSegNet, checkpoints, package.module:factory, or .onnx files.
        size: (width, height), pixels.
        classes: K.
        fast_tail: give the networks of others our class map too.
        own: what the factories' networks take and give.

    Raises:
        CheckpointError, ValueError: one cannot be opened or exported.
    """
    image_1HW3 = street_image(size)
    candidates: list[Candidate] = []
    for spec in specs:
        name = unlike(short_name(spec), {candidate.name for candidate in candidates})
        if is_onnx(spec):
            model = read_onnx(Path(spec), size)
            candidates.append(Candidate(name, spec, None, model, feed_for(model, image_1HW3)))
            continue
        graph = open_graph(spec, size, classes, own)
        try:
            model = export(graph, fast_tail)
        except ValueError as error:
            raise ValueError(f"{spec} cannot be compared: {error}") from error
        candidates.append(Candidate(name, spec, graph, model, {"image": image_1HW3}))
    return candidates


def open_module(spec: str, size: tuple[int, int], classes: int) -> nn.Module:
    """Return a network as a torch module."""
    if spec in VARIANTS:
        return untrained(classes, spec, street_image(size))
    return _open_network(spec, size, classes, None).model


def open_graph(
    spec: str, size: tuple[int, int], classes: int, own: OwnNetworks | None = None
) -> DeployGraph:
    """Return a network's deploy graph.

    Raises:
        CheckpointError, ValueError: it cannot be opened, or has no logits for each class.
    """
    if spec in VARIANTS:
        return DeployGraph(open_module(spec, size, classes), *size).eval()
    network = _open_network(spec, size, classes, own)
    for note in network.check(spec):
        print(note, file=sys.stderr)
    return network.graph()


def _open_network(
    spec: str, size: tuple[int, int], classes: int, own: OwnNetworks | None
) -> Network:
    own = own if own is not None and is_factory(spec) else OwnNetworks()
    normalization = parse_normalization(own.normalization, own.color)
    threshold = Reading.threshold if own.threshold is None else own.threshold
    how = (normalization, own.output_name or "", threshold)
    try:
        return open_network(spec, numbered_classes(classes), None, size, *how)
    except CheckpointError as error:
        raise CheckpointError(f"{spec}: {error}; variants are {', '.join(VARIANTS)}") from error


def export(graph: DeployGraph, fast_tail: bool = False) -> onnx.ModelProto:
    """Convert to float32 ONNX, camera bytes in and class ids out.

    Raises:
        ValueError: ONNX cannot express the network.
    """
    return take_bytes(export_float(graph, fast_tail), graph)


def export_float(graph: DeployGraph, fast_tail: bool = False) -> onnx.ModelProto:
    """Convert to float32 ONNX that takes the normalised image."""
    module = FloatGraph(graph)
    if not fast_tail and not isinstance(graph.core, PaddedLogits):
        module.class_map = ResizeArgMax(graph)
    return to_onnx(module.eval(), torch.zeros(1, 3, graph.height, graph.width), graph)


def street_image(size: tuple[int, int]) -> Array:
    """Return a generated street scene, uint8 (1, H, W, 3)."""
    width, height = size
    scene = open_dataset(STREET.format(width=max(32, width), height=max(32, height)), "test")[0]
    return np.ascontiguousarray(scene.image_HW3[None, :height, :width])


def short_name(spec: str) -> str:
    """Return "ddrnet" of "rivals.nets:ddrnet", the folder of "runs/NAME/model.safetensors"."""
    path = Path(spec)
    if path.stem == "model":
        return path.resolve().parent.name
    is_file = path.suffix in (".onnx", ".safetensors", ".pth", ".pt")
    return path.stem if is_file else spec.rpartition(":")[2].rpartition("/")[2]


def unlike(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: with a number where it is."""
    numbered = (f"{name}-{index}" for index in count(2))
    return next(name for name in chain([name], numbered) if name not in taken)


# Our class map computes only where classes meet, so its time depends on the picture. Untrained, the
# network sees one class everywhere and would look faster than in use. Here as many cells between
# logits lie on borders as in CamVid's test pictures, by a trained FastSegNet-small at 1024x512.
BORDER_SHARE = 0.21
BISECTIONS = 20
STRONGEST_BIAS = 32.0  # standard deviations: one class wins everywhere


def untrained(classes: int, variant: str, image_1HW3: Array) -> FastSegNet:
    """Return a network with random weights, in eval mode, for a picture, uint8 (1, H, W, 3)."""
    torch.manual_seed(0)
    network = FastSegNet(classes, variant).eval()
    classifier = network.head[1]
    assert isinstance(classifier, nn.Conv2d) and classifier.bias is not None
    with torch.no_grad():
        image_N3HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
        logits_1Khw = network.logits(_whole_strides(image_N3HW))
        mean_K, std_K = logits_1Khw.mean(dim=(0, 2, 3)), logits_1Khw.std(dim=(0, 2, 3))
        spread_1Khw = (logits_1Khw - mean_K[:, None, None]) / std_K[:, None, None]
        favour_K = _favour(spread_1Khw, torch.randn(classes))
        classifier.weight /= std_K[:, None, None, None]
        classifier.bias.copy_((classifier.bias - mean_K) / std_K + favour_K)
    return network


def border_share(logits_1Khw: Tensor) -> float:
    """Return the share of cells between four logits in which more than one class wins."""
    ids_hw = F.pad(logits_1Khw, (1, 1, 1, 1), mode="replicate").argmax(dim=1)[0]
    corners = ids_hw[:-1, :-1], ids_hw[:-1, 1:], ids_hw[1:, :-1], ids_hw[1:, 1:]
    stacked_4hw = torch.stack(corners)
    return float((stacked_4hw.amax(dim=0) != stacked_4hw.amin(dim=0)).float().mean())


def _favour(logits_1Khw: Tensor, direction_K: Tensor) -> Tensor:
    """Return biases that make some classes win more often, until borders are rare enough."""
    low, high = 0.0, STRONGEST_BIAS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        share = border_share(logits_1Khw + middle * direction_K[:, None, None])
        low, high = (low, middle) if share < BORDER_SHARE else (middle, high)
    return low * direction_K  # the share is at least as large as wanted


def _whole_strides(image_N3HW: Tensor) -> Tensor:
    height, width = (max(32, side // 32 * 32) for side in image_N3HW.shape[-2:])
    return F.interpolate(image_N3HW, size=(height, width))
