import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.onnx.logit_rows import write_rows
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import convolutions, quantize, quantize_weights
from fastseg_runtime.arrays.metrics import Array
from torch import Tensor, nn

from fastseg import DeployGraph, FastSegNet

SIZE = (96, 64)


def with_rows_unchecked(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    write_rows(changed)
    return changed


def with_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = with_rows_unchecked(model)
    onnx.checker.check_model(changed)
    used = {name for node in changed.graph.node for name in node.input}
    assert used.issuperset(tensor.name for tensor in changed.graph.initializer)
    return changed


def int8_of(
    core: nn.Module, keep_last: bool = False, size: tuple[int, int] = SIZE
) -> tuple[onnx.ModelProto, Array]:
    """Return the int8 graph and a picture for it."""
    torch.manual_seed(0)
    graph = DeployGraph(core, *size).eval()
    picture = np.random.default_rng(0).integers(0, 256, (1, size[1], size[0], 3), np.uint8)
    model = float_graph(graph)
    kept = convolutions(model)[-1:] if keep_last else ()
    return take_bytes(quantize(model, [picture], graph.mean, graph.std, kept), graph), picture


def logits_and_ids(model: onnx.ModelProto, picture_1HW3: Array) -> tuple[Array, Array]:
    """Return what the class map reads, in the order of its pixels, and its ids."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    rows = next(node for node in model.graph.node if node.name == "/class_map/Reshape")
    model.graph.output.append(onnx.ValueInfoProto(name=rows.output[0]))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), None, ["CPUExecutionProvider"]
    )
    ids, logits = session.run(None, {"image": picture_1HW3})
    return logits, ids


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


class Coarse(nn.Module):
    """Logits at 1/8, by a last convolution of any form."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
        self.last = last

    def forward(self, x_N3HW: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x_N3HW))
        return logits


@pytest.mark.parametrize(
    "core",
    [FastSegNet(5, "nano"), Coarse(nn.Conv2d(8, 6, 1)), Coarse(nn.Conv2d(8, 6, 1, bias=False))],
)
def test_a_product_gives_the_logits_of_the_last_convolution(core: nn.Module) -> None:
    model, picture = int8_of(core)
    changed = with_rows(model)
    assert operators(changed).count("Conv") == operators(model).count("Conv") - 1
    assert operators(changed).count("Gemm") == 1
    (before, ids), (after, ids_then) = (logits_and_ids(m, picture) for m in (model, changed))
    assert np.allclose(before, after, atol=1e-5)
    assert (ids == ids_then).mean() > 0.999


@pytest.mark.parametrize("size", [(96, 72), (72, 96), (101, 75)])
def test_logits_that_are_cut_to_the_picture_come_of_a_product_too(size: tuple[int, int]) -> None:
    model, picture = int8_of(FastSegNet(5, "nano"), size=size)
    assert "Slice" in operators(model)
    changed = with_rows(model)
    assert operators(changed).count("Gemm") == 1
    (before, ids), (after, ids_then) = (logits_and_ids(m, picture) for m in (model, changed))
    assert np.allclose(before, after, atol=1e-5)
    assert (ids == ids_then).mean() > 0.999


def test_a_cut_of_classes_or_at_computed_places_stays() -> None:
    model, _ = int8_of(FastSegNet(5, "nano"), size=(96, 72))
    cut = next(node for node in model.graph.node if node.op_type == "Slice")
    axes = next(tensor for tensor in model.graph.initializer if tensor.name == cut.input[3])
    elsewhere = onnx.ModelProto.FromString(model.SerializeToString())
    next(t for t in elsewhere.graph.initializer if t.name == axes.name).CopyFrom(
        onnx.numpy_helper.from_array(np.array([1, 2]), axes.name)
    )
    assert operators(with_rows_unchecked(elsewhere)) == operators(model)
    model.graph.initializer.remove(axes)
    assert operators(with_rows_unchecked(model)) == operators(model)


@pytest.mark.parametrize(
    "last",
    [nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1, groups=2), nn.Conv2d(8, 6, 1, padding=1)],
)
def test_another_last_convolution_stays_as_it_is(last: nn.Module) -> None:
    model, _ = int8_of(Coarse(last))
    assert with_rows(model) == model


def test_a_turn_of_the_networks_own_stays_as_it_is() -> None:
    model, _ = int8_of(FastSegNet(5, "nano"))
    next(node for node in model.graph.node if node.name == "/class_map/Transpose").name = "tokens"
    assert with_rows(model) == model


def test_what_a_convolution_leaves_unsaid_is_its_default_and_a_made_kernel_stays() -> None:
    model, picture = int8_of(Coarse(nn.Conv2d(8, 6, 1)))
    conv = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    del conv.attribute[:]
    changed = with_rows(model)
    assert operators(changed).count("Gemm") == 1
    assert np.allclose(*(logits_and_ids(m, picture)[0] for m in (model, changed)), atol=1e-5)
    maker = next(node for node in model.graph.node if conv.input[1] in node.output)
    maker.op_type = "Identity"
    unchanged = onnx.ModelProto()
    unchanged.CopyFrom(model)
    write_rows(unchanged)
    assert unchanged == model


def test_a_float_last_convolution_stays_as_it_is() -> None:
    model, _ = int8_of(FastSegNet(5, "nano"), keep_last=True)
    assert with_rows(model) == model


def test_a_graph_that_computes_in_float_stays_as_it_is() -> None:
    graph = DeployGraph(FastSegNet(5, "nano"), *SIZE).eval()
    for model in (float_graph(graph), quantize_weights(float_graph(graph))):
        assert with_rows(model) == model
