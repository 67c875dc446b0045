"""A network to compare, by any of its names, as one ONNX graph that gives a class map."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from fastseg_exporters.onnx.to_onnx import FloatGraph, take_bytes, to_onnx
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, numbered_classes
from fastseg_runtime.engines.own_onnx import class_axis
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

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


# ONNX files of others; those that give logits get bilinear upsampling and argmax.
BYTES, CLASS_MAP = "camera_bytes", "class_map"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
OPSET_OF_RESIZE = 13  # from it on, the region of interest may be left out


def read_onnx(path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    """Read a file, fix its size, and make it give a class map.

    Args:
        path: one input, an image as (1, 3, H, W) or (1, H, W, 3), float32 or uint8; its first
            output logits (1, K, h, w) or (1, h, w, K), one for two classes, or class ids, those of
            two classes also as BOOL.
        size: (width, height) for the dimensions that the file leaves open.

    Raises:
        ValueError: no such file, no ONNX, or another kind of input or output.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx raises what protobuf raises, of many kinds
        found = file_kind(path) if path.exists() else "absent"
        raise ValueError(f"{path} is {found}, or damaged; expected a whole ONNX file") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"{path} has {len(inputs)} inputs; expected one image")
    _fix_size(inputs[0], size, path)
    channels_last = _dims(inputs[0])[1] != 3
    del model.graph.value_info[:]  # of the open size
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return _with_class_map(_from_bytes(model), size, path, channels_last)


def feed_for(model: onnx.ModelProto, image_1HW3: Array) -> dict[str, Array]:
    """Return an input for a graph that takes bytes."""
    return {_picture(model).name: np.ascontiguousarray(image_1HW3)}


def _picture(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    pictures = (value for value in model.graph.input if value.name not in weights)
    found: onnx.ValueInfoProto = next(pictures)
    return found


def _from_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a graph take a camera's bytes: what normalises and turns them is timed with everybody.

    By (x - 128) / 64, which takes as long as any other mean and deviation.
    """
    picture = _picture(model)
    kind, dims = picture.type.tensor_type.elem_type, _dims(picture)
    channels_first = dims[1] == 3
    if kind not in FLOATS and not channels_first:
        return model  # that is what it takes
    last, nodes = BYTES, list[onnx.NodeProto]()
    if kind in FLOATS:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        for name, value in (("bytes_mean", 128), ("bytes_deviation", 64)):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        nodes.append(_node("Cast", [BYTES], "bytes_as_float", to=int(kind)))
        nodes.append(_node("Sub", ["bytes_as_float", "bytes_mean"], "bytes_centred"))
        nodes.append(_node("Div", ["bytes_centred", "bytes_deviation"], last := "normalised_bytes"))
    if channels_first:
        nodes.append(_node("Transpose", [last], picture.name, perm=[0, 3, 1, 2]))
    else:
        nodes[-1].output[:] = [picture.name]
    nodes += list(model.graph.node)
    height, width = dims[2:] if channels_first else dims[1:3]
    taken = helper.make_tensor_value_info(BYTES, TensorProto.UINT8, [1, height, width, 3])
    others = [value for value in model.graph.input if value.name != picture.name]
    for field, values in ((model.graph.node, nodes), (model.graph.input, [taken, *others])):
        del field[:]
        field.extend(values)
    return model


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _fix_size(value: onnx.ValueInfoProto, size: tuple[int, int], path: Path) -> None:
    width, height = size
    dims = _dims(value)
    by_order = {1: [1, 3, height, width], 3: [1, height, width, 3]}
    channel_axes = [axis for axis in by_order if len(dims) == 4 and dims[axis] == 3]
    if not channel_axes:
        raise ValueError(f"{path}: the input is {dims}; expected (1, 3, H, W) or (1, H, W, 3)")
    wanted = by_order[channel_axes[0]]
    if any(dim not in (0, want) for dim, want in zip(dims, wanted, strict=True)):
        raise ValueError(f"{path} is made for {dims}, not for {wanted}; export it for this size")
    for dim, want in zip(value.type.tensor_type.shape.dim, wanted, strict=True):
        dim.dim_value = want


def _with_class_map(
    model: onnx.ModelProto, size: tuple[int, int], path: Path, channels_last: bool
) -> onnx.ModelProto:
    output = model.graph.output[0]
    kind, dims = output.type.tensor_type.elem_type, _dims(output)
    type_name, axis = TensorProto.DataType.Name(kind), None
    if "INT" in type_name or type_name == "BOOL":
        return keep_only(model, output)
    width, height = size
    if kind in FLOATS and len(dims) == 4 and _opset(model) >= OPSET_OF_RESIZE:
        try:
            # Where no other axis fits, the last does: a converter may turn the picture alone.
            axis = class_axis(dims, size, channels_last) or class_axis(dims, size, True)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
    if axis is None:
        told = ", ".join(str(dim or "?") for dim in dims)
        fix = "; a ? is what the file does not tell: export it for one size" if 0 in dims else ""
        raise ValueError(
            f"{path} gives {type_name} [{told}] in opset {_opset(model)}; expected class ids, or "
            f"FLOAT logits (1, K, h, w) or (1, h, w, K) of at most {IGNORE_INDEX} classes that lie "
            f"over a picture of {width}x{height}, in opset {OPSET_OF_RESIZE} or newer{fix}"
        )
    last, nodes = output.name, list[onnx.NodeProto]()
    if axis == 3:
        nodes.append(_node("Transpose", [last], last := "logits_first", perm=[0, 3, 1, 2]))
        dims = [1, dims[3], *dims[1:3]]
    constants = {"scales": np.array([1, 1, height / dims[2], width / dims[3]], np.float32)}
    nodes.append(_node("Resize", [last, "", "class_map_scales"], "full_size", mode="linear"))
    if dims[1] > 1:
        nodes.append(_node("ArgMax", ["full_size"], "full_size_ids", axis=1, keepdims=0))
    else:  # the logit of the second of two classes
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        constants |= {"half": np.zeros(1, dtype), "axis": np.array([1])}
        nodes.append(_node("Greater", ["full_size", "class_map_half"], "is_second"))
        nodes.append(_node("Squeeze", ["is_second", "class_map_axis"], "full_size_ids"))
    nodes.append(_node("Cast", ["full_size_ids"], CLASS_MAP, to=int(TensorProto.UINT8)))
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, f"class_map_{name}") for name, value in constants.items()
    )
    shape = [1, height, width]
    ids = helper.make_tensor_value_info(CLASS_MAP, TensorProto.UINT8, shape)
    return keep_only(model, ids)


def keep_only(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    """Leave in a graph what one output needs: ONNX Runtime runs what nobody asked for too."""
    needed, kept = {output.name}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(filter(None, _taken_by(node)))  # "" is what is left out
            kept.append(node)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.extend([output])
    return model


def _taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node takes, and what the graphs inside of it take from around it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _taken_by(inner)
        yield from (value.name for value in attribute.g.output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], f"/compared/{output}", **attributes)


def _opset(model: onnx.ModelProto) -> int:
    versions = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(next(versions))
