"""The user's own ONNX file inside of the deploy graph that we make around it.

The deploy graph runs the file as one step, which the converter writes down as fastseg::Run; here
the file's nodes take its place.
"""

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, compose, helper, inliner, numpy_helper, version_converter

from fastseg.backend_onnx import ONE_HOT, RUN, OnnxFile
from fastseg.onnx_graph import graph_at

PREFIX = "/core/network/"  # of its names: such as torch's exporter gives the network of others
OLD_GRID = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
# A cast to these leaves class ids what they are; one to bool makes others of them.
_HOLD_IDS = {
    getattr(onnx.TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
} | {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
# What only moves values: bytes stay what they are in float32 too.
_MOVES = ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Slice")


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators."""
    versions = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(next(versions))


def nodes_of(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yield all nodes of a graph, and of the graphs inside of them."""
    for node in graph.node:
        yield node
        for given in node.attribute:
            for inner in (*given.graphs, *([given.g] if given.HasField("g") else [])):
                yield from nodes_of(inner)


def refuse_operators_of_others(model: ModelProto) -> None:
    """Refuse what ONNX does not have, for engines that are not ONNX Runtime.

    Raises:
        ValueError: an operator of another domain; it is named.
    """
    for node in nodes_of(model.graph):
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(
                f"{node.domain}::{node.op_type} ({node.name}) is none of ONNX's own operators, "
                "which other engines than ONNX Runtime take alone; export the file without ONNX "
                "Runtime's optimiser"
            )


def constant_of(node: NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a Constant under its name; None where it is sparse, or text."""
    (given,) = node.attribute
    if given.name == "value":
        tensor: onnx.TensorProto = onnx.TensorProto.FromString(given.t.SerializeToString())
        tensor.name = node.output[0]
        return tensor
    kinds = {"value_float": np.float32, "value_int": np.int64}
    kind = kinds.get(given.name.removesuffix("s"))
    if kind is None:
        return None
    values = np.array(helper.get_attribute_value(given), kind)
    return numpy_helper.from_array(values, node.output[0])


def put_in(around: ModelProto, file: OnnxFile, size: tuple[int, int]) -> ModelProto:
    """Return the graph with the file's nodes in place of the step that runs it.

    The opset is that of the graph around it, or the file's own if that is newer and cannot be said
    in the older.

    Args:
        around: from torch's exporter.
        file: the user's.
        size: (width, height) that it is to run at.

    Raises:
        ValueError: the file cannot be said in any opset.
    """
    own = inliner.inline_local_functions(graph_at(file.path, file.port, size))
    widen(own.graph)
    if file.port.takes_bytes:
        _spell_normalisation_out(own.graph, file.port.name)
    around, own = _same_opset(around, own)
    _leave_out_what_is_empty(own.graph)
    own = compose.add_prefix(own, PREFIX)
    for index, node in enumerate(own.graph.node):
        node.name = node.name or f"{PREFIX}{node.op_type}_{index}"
    return _joined(around, own, file)


def _same_opset(around: ModelProto, own: ModelProto) -> tuple[ModelProto, ModelProto]:
    wanted = opset_of(around)
    if opset_of(own) == wanted:
        return around, own
    try:
        converted = version_converter.convert_version(own, wanted)
        if opset_of(own) < 11:
            _keep_grid(converted.graph)
        return around, converted
    except Exception as error:  # it raises RuntimeError and others, with the C++ line
        if opset_of(own) < wanted:
            words = " ".join(str(error).split())[:200]
            raise ValueError(
                f"opset {opset_of(own)} of the file does not become {wanted}: {words}; export it "
                f"with opset {wanted}"
            ) from error
    return version_converter.convert_version(around, opset_of(own)), own  # ours pass any


def _keep_grid(graph: onnx.GraphProto) -> None:
    """Say where Resize looks, which until opset 10 was where asymmetric looks, and no choice."""
    for node in graph.node:
        if node.op_type == "Resize":
            said = {attribute.name for attribute in node.attribute}
            for name, value in OLD_GRID.items():
                if name not in said:
                    node.attribute.append(helper.make_attribute(name, value))


def widen(graph: onnx.GraphProto) -> None:
    """Change half precision to float32: in what a target computes is said by its precision.

    int8 and half have no operator in common, and "fp32" would be half in fact.
    """
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for given in (given for node in graph.node for given in node.attribute):
        if given.name in ("to", "dtype") and given.i in _HALF:
            given.i = onnx.TensorProto.FLOAT
        if given.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(given.t)
        for inner in (*given.graphs, *([given.g] if given.HasField("g") else [])):
            widen(inner)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _spell_normalisation_out(graph: onnx.GraphProto, image: str) -> None:
    """Say in float operations how a float file of ours normalises, which is as DequantizeLinear.

    Half precision has no such operation on bytes, and a graph with one counts as int8.
    """
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        return
    scalars = {tensor.name for tensor in graph.initializer if not tensor.dims}
    moved, nodes = {image}, list[NodeProto]()
    for node in graph.node:
        if (
            node.op_type == "DequantizeLinear"
            and moved & {*node.input}
            and node.input[1] in scalars
        ):
            nodes += in_float(node)
            continue
        nodes.append(node)
        if node.op_type in _MOVES and node.input[0] in moved:
            moved.add(node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)


def in_float(dequantizer: NodeProto) -> list[NodeProto]:
    """Return what computes in float what a DequantizeLinear of one scale does."""
    source, scale, *zero = dequantizer.input
    (made,) = dequantizer.output
    names = [f"{made}_{index}" for index in range(len(zero) + 1)]
    casts = [
        _cast(given, name, "", onnx.TensorProto.FLOAT)
        for given, name in zip((source, *zero), names, strict=True)
    ]
    centred = [helper.make_node("Sub", names, [f"{made}_centred"])] if zero else []
    last = [*casts, *centred][-1].output[0]
    return [*casts, *centred, helper.make_node("Mul", [last, scale], [made])]


def _leave_out_what_is_empty(inner: onnx.GraphProto) -> None:
    """Leave inputs of Resize out that opset 11 wants and that hold nothing.

    A tensor of no scales beside the sizes counts as scales where it is not a constant, as in fp16.
    """
    constants: dict[str, onnx.TensorProto | None] = {x.name: x for x in inner.initializer}
    constants |= {n.output[0]: constant_of(n) for n in inner.node if n.op_type == "Constant"}
    empty = {name for name, tensor in constants.items() if tensor and 0 in tensor.dims}
    for node in inner.node:
        if node.op_type == "Resize":
            node.input[:] = ["" if name in empty else name for name in node.input]


def _joined(around: ModelProto, own: ModelProto, file: OnnxFile) -> ModelProto:
    body, inner = around.graph, own.graph
    (step,) = (node for node in body.node if f"{node.domain}::{node.op_type}" == RUN)
    (image,) = (x for x in inner.input if x.name == PREFIX + file.port.name)
    head = [_picture(step.input[0], image.name, file, inner)]
    renamed = {
        PREFIX + name: made for name, made in zip(file.names, step.output, strict=True) if made
    }
    tail = [helper.make_node("Identity", [name], [made]) for name, made in renamed.items()]
    stale = [value for value in body.value_info if value.name in step.output]  # half, as it ran
    for value in stale:
        body.value_info.remove(value)
    at = list(body.node).index(step)
    nodes = [*body.node[:at], *head, *inner.node, *tail, *body.node[at + 1 :]]
    del body.node[:]
    body.node.extend(_ids_as_they_are(nodes, [value.name for value in body.output]))
    body.initializer.extend(inner.initializer)
    body.sparse_initializer.extend(inner.sparse_initializer)
    known = {entry.domain for entry in around.opset_import}
    around.opset_import.extend(x for x in own.opset_import if x.domain not in known)
    # Not all that the file's tool imports, as ONNX Runtime's optimiser does of all there is.
    used = {"", *(node.domain for node in nodes_of(body))}
    kept = [entry for entry in around.opset_import if entry.domain in used]
    del around.opset_import[:]
    around.opset_import.extend(kept)
    # The least that says this opset, not what the file's tool happened to write: old releases of
    # ONNX Runtime read no newer one.
    around.ir_version = helper.find_min_ir_version_for(around.opset_import, ignore_unknown=True)
    return around


def _picture(source: str, name: str, file: OnnxFile, inner: onnx.GraphProto) -> NodeProto:
    """Return the node that gives the file its picture, of the type that it wants.

    Bytes that are only moved before a cast to float stay float: TensorRT has no bytes inside.
    """
    if not file.port.takes_bytes or _only_moved(name, inner):
        return helper.make_node("Identity", [source], [name], f"{PREFIX}picture")
    return _cast(source, name, f"{PREFIX}picture", onnx.TensorProto.UINT8)


def _only_moved(name: str, inner: onnx.GraphProto) -> bool:
    users = [node for node in inner.node if name in node.input]
    return bool(users) and all(
        node.op_type == "Cast"
        or (node.op_type in _MOVES and node.input[0] == name and _only_moved(node.output[0], inner))
        for node in users
    )


def _ids_as_they_are(nodes: list[NodeProto], outputs: Collection[str]) -> list[NodeProto]:
    """Return the nodes without making scores of ids, of which the argmax makes the ids again.

    A cast at the file's end is left out too, unless it makes other ids, as one to bool does:
    TensorRT has no bytes inside, and ours follows.

    Raises:
        ValueError: scores are wanted, and the file gives none.
    """
    made_by = {node.output[0]: node for node in nodes}
    ids = {n.output[0]: n.input[0] for n in nodes if f"{n.domain}::{n.op_type}" == ONE_HOT}
    left = []
    for node in nodes:
        if node.op_type == "ArgMax" and node.input[0] in ids:
            source = ids[node.input[0]]
            while source in made_by and _keeps_ids(made_by[source]):
                source = made_by[source].input[0]
            node = _cast(source, node.output[0], node.name, onnx.TensorProto.INT64)
        if node.output[0] not in ids:
            left.append(node)
    if any(name in ids for name in (*outputs, *(name for node in left for name in node.input))):
        raise ValueError(
            "the file gives class ids and no logits: leave --output logits, --confidence and "
            "--mask-stride out"
        )
    return left


def _keeps_ids(node: NodeProto) -> bool:
    to = (given.i for given in node.attribute if given.name == "to")
    return node.op_type == "Identity" or (node.op_type == "Cast" and next(to) in _HOLD_IDS)


def _cast(source: str, made: str, name: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [made], name, to=to)
