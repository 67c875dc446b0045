"""ONNX graphs in the form that TensorRT's parser takes, from 8.6 on.

TensorRT moves bytes in and out of an engine only through a cast from or to float, computes
argmax as int32, and wants scales, weights and biases as initializers, not behind nodes.
Sources: NVIDIA's support matrix and the documents of onnx-tensorrt.
"""

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

OPSET = 17  # the newest that TensorRT 8.6 reads
IMAGE = "image"  # what backends call the input


def fit_for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of our deploy graph that every TensorRT from 8.6 on parses.

    Args:
        model: uint8 image in, ids or float logits out.

    Raises:
        ValueError: the opset is too new.
    """
    fitted = onnx.ModelProto()
    fitted.CopyFrom(model)
    _check_opset(fitted)
    aliases = {**_fold_constants(fitted.graph), fitted.graph.input[0].name: IMAGE}
    fitted.graph.input[0].name = IMAGE
    nodes: list[NodeProto] = []
    for node in fitted.graph.node:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        if node.op_type == "Cast" and _target(node) == TensorProto.UINT8:
            nodes += _cast_over_float(node)
        else:
            nodes.append(node)
    del fitted.graph.node[:]
    fitted.graph.node.extend(nodes)
    del fitted.graph.value_info[:]  # tells types of what is an initializer now
    onnx.checker.check_model(fitted)
    return fitted


def _check_opset(model: onnx.ModelProto) -> None:
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET:
        raise ValueError(
            f"the ONNX graph has opset {opset}, TensorRT 8.6 reads {OPSET} at most; "
            "export it with dynamo=False, which keeps the opset that was asked for"
        )


def _fold_constants(graph: GraphProto) -> dict[str, str]:
    """Make initializers of Constant nodes, remove Identity nodes of initializers.

    Returns:
        The name of an initializer by the name of an Identity's output.
    """
    constants = [node for node in graph.node if node.op_type == "Constant"]
    graph.initializer.extend(_initializer(node) for node in constants)
    names = {tensor.name for tensor in graph.initializer}
    copies = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in names]
    for node in [*constants, *copies]:
        graph.node.remove(node)
    return {node.output[0]: node.input[0] for node in copies}


def _initializer(node: NodeProto) -> TensorProto:
    tensor = TensorProto()
    tensor.CopyFrom(helper.get_attribute_value(node.attribute[0]))
    tensor.name = node.output[0]
    return tensor


def _cast_over_float(node: NodeProto) -> list[NodeProto]:
    """Ids to int32, to float, and only then to uint8."""
    (source,), (output,) = node.input, node.output
    chain = []
    for elem_type, suffix in ((TensorProto.INT32, "int32"), (TensorProto.FLOAT, "float")):
        target = f"{output}_as_{suffix}"
        chain.append(helper.make_node("Cast", [source], [target], name=target, to=elem_type))
        source = target
    node.input[0] = source
    return [*chain, node]


def _target(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
