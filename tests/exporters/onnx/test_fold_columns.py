import numpy as np
import onnx
import onnxruntime
import pytest
from fastseg_exporters.onnx.fold_columns import fold_columns
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import convolutions, quantize
from fastseg_runtime.arrays.metrics import Array
from torch import nn

from fastseg import DeployGraph, FastSegNet


def int8_graphs(graph: DeployGraph, keep_first: bool = False) -> tuple[bytes, bytes, Array]:
    """Return the int8 graph without and with its columns folded, and a picture for them."""
    shape = (1, graph.height, graph.width, 3)
    image_1HW3 = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    model = float_graph(graph.eval())
    kept = convolutions(model)[: int(keep_first)]
    model = quantize(model, [image_1HW3], graph.mean, graph.std, kept)
    folded = take_bytes(model, graph)
    plain = folded.SerializeToString()
    fold_columns(folded, (graph.height, graph.width))
    onnx.checker.check_model(folded)
    return plain, folded.SerializeToString(), image_1HW3


def run(model: bytes, image_1HW3: Array) -> Array:
    session = onnxruntime.InferenceSession(model, None, ["CPUExecutionProvider"])
    result: Array = session.run(None, {"image": image_1HW3})[0]
    return result


def first_channels(model: bytes) -> int:
    """Return the input channels of the first convolution's weight."""
    body = onnx.load_from_string(model).graph
    conv = next(node for node in body.node if node.op_type == "Conv")
    weight = next(node for node in body.node if conv.input[1] in node.output).input[0]
    return next(tensor.dims[1] for tensor in body.initializer if tensor.name == weight)


@pytest.mark.parametrize("size", [(100, 60), (36, 41)])
def test_folded_columns_give_the_same_bits_of_our_networks(size: tuple[int, int]) -> None:
    plain, folded, image_1HW3 = int8_graphs(DeployGraph(FastSegNet(5, "nano"), *size))
    assert (first_channels(plain), first_channels(folded)) == (3, 12)
    assert np.array_equal(run(plain, image_1HW3), run(folded, image_1HW3))


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.ReLU6(), nn.Identity()])
@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 1), (7, 3), (3, 3)])
def test_any_kernel_of_stride_2_gives_the_same_bits(
    kernel: int, padding: int, middle: nn.Module
) -> None:
    first = nn.Conv2d(3, 8, kernel, stride=2, padding=padding)
    pool = nn.AdaptiveAvgPool2d((6, 8))
    network = nn.Sequential(first, middle, nn.Conv2d(8, 4, 1), pool, nn.Conv2d(4, 4, 1))
    plain, folded, image_1HW3 = int8_graphs(DeployGraph(network, 32, 24, output="logits"))
    assert first_channels(folded) == 12
    assert np.array_equal(run(plain, image_1HW3), run(folded, image_1HW3))


@pytest.mark.parametrize(
    ("first", "width", "keep_first"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 30, False),  # no whole groups of columns
        (nn.Conv2d(3, 8, 3, stride=2, padding=2), 32, False),  # 17 results a row
        (nn.Conv2d(3, 8, 3, stride=1, padding=1), 32, False),
        (nn.Conv2d(3, 9, 3, stride=2, padding=1, groups=3), 32, False),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 32, True),  # in float
    ],
)
def test_another_first_convolution_stays_as_it_is(
    first: nn.Conv2d, width: int, keep_first: bool
) -> None:
    last = nn.Conv2d(first.out_channels, 4, 1)
    network = nn.Sequential(first, nn.ReLU(), last, nn.AdaptiveAvgPool2d(2))
    graph = DeployGraph(network, width, 24, output="logits")
    plain, folded, _ = int8_graphs(graph, keep_first)
    assert plain == folded


@pytest.mark.parametrize(
    ("attributes", "taken"),
    [({"strides": None}, False), ({"auto_pad": "SAME_UPPER", "pads": None}, False), ({}, True)],
)
def test_attributes_that_are_left_out_or_said_otherwise_are_no_error(
    attributes: dict[str, str | None], taken: bool
) -> None:
    first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = DeployGraph(network, 32, 24, output="logits").eval()
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), np.uint8)
    model = quantize(float_graph(graph), [image_1HW3], graph.mean, graph.std)
    model = take_bytes(model, graph)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    kept = [attribute for attribute in conv.attribute if attribute.name not in attributes]
    del conv.attribute[:]
    conv.attribute.extend(kept)
    said = {name: value for name, value in attributes.items() if value}
    conv.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in said.items())
    fold_columns(model, (graph.height, graph.width))
    assert (first_channels(model.SerializeToString()) == 12) == taken


@pytest.mark.parametrize(("mean", "std"), [(128.0, 64.0), (127.0, 64.0)])
def test_the_step_to_int8_is_left_where_it_is_not_the_cameras(mean: float, std: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = DeployGraph(network, 32, 24, mean, std, output="logits").eval()
    dark_1HW3 = np.random.default_rng(0).integers(0, 90, (1, 24, 32, 3), np.uint8)
    model = quantize(float_graph(graph), [dark_1HW3], mean, std)
    image_1HW3 = np.random.default_rng(1).integers(0, 90, (1, 24, 32, 3), np.uint8)
    whole, int8 = (
        run(take_bytes(m, graph).SerializeToString(), image_1HW3)
        for m in (float_graph(graph), model)
    )
    assert np.abs(whole - int8).max() < 0.1 * np.ptp(whole)
