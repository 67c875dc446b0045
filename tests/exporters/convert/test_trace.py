"""What an ONNX graph would freeze is found, by its line; what it follows is let through."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.convert.trace import first_value_read
from fastseg_exporters.onnx.class_map import CellClassMap
from fastseg_exporters.onnx.to_onnx import float_graph
from fastseg_exporters.tensorrt.to_tensorrt import tensorrt_onnx
from onnx import TensorProto
from onnxruntime import InferenceSession
from torch import Tensor, nn

from fastseg import DeployGraph, FastSegNet
from tests.doubles.folding_networks import HABITS, with_habit


class Reading(nn.Module):
    def __init__(self, read: Callable[["Reading", Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.read = nn.Conv2d(3, 5, 3, padding=1), read
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("keep", torch.tensor([True, False, True, True, False]))
        self.register_buffer("order", torch.tensor([2, 0, 1, 4, 3]))

        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        return self.read(self, x)

    def grid_of(self, x: Tensor) -> Tensor:
        if self.grid is None or self.grid.shape[2:] != x.shape[2:]:
            self.grid = torch.linspace(0, 1, x.shape[3]).expand(1, 1, *x.shape[2:])
        return self.grid


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _sum_of_the_middle(x: Tensor) -> Tensor:
    low = x[x < 1.0]
    return low[low > -1.0].sum()


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # networks of others script all the same
    swish = torch.jit.script(_swish)
    middle = torch.jit.script(_sum_of_the_middle)


def sized(x: Tensor) -> Tensor:
    return x.view(*x.shape, *[1] * (4 - x.ndim))[:, :1]


def sized_like(y: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(x, size=y.shape[2:])


def sized_by(w: Tensor) -> Tensor:
    return w.view(1, w.shape[0], 1, 1)


def per_class(ids: Tensor) -> Tensor:
    return sized_by(torch.bincount(ids.flatten(), minlength=5))


def columns(x: Tensor) -> Tensor:
    return torch.nonzero(x[0, 0, 0] > 1).flatten()


def largest(count: int, x: Tensor) -> Tensor:
    return x[0, 0] >= x[0, 0].flatten().topk(count).values[-1]


def written(n: Reading, x: Tensor) -> Tensor:
    y = torch.zeros(1, 3, 16, 16)
    y[:] = x
    return n.layer(x) * y.sum().item()


FROZEN: dict[str, Callable[[Reading, Tensor], Any]] = {
    "if": lambda n, x: n.layer(x) if n.layer(x).mean() > 0 else x,
    "item": lambda n, x: n.layer(x) / x.max().item(),
    "float": lambda n, x: n.layer(x) * float(x.max()),
    "list": lambda n, x: n.layer(x) * x.mean(dim=(0, 2, 3)).tolist()[0],
    "numpy": lambda n, x: n.layer(x) * np.tanh(x.numpy()).mean(),
    "a tensor of a list": lambda n, x: n.layer(x) * torch.tensor([x.mean(), x.std()])[0],
    "a tensor of a nested list": lambda n, x: n.layer(x) * torch.as_tensor([[1.0], [x.mean()]])[1],
    "an array of a list": lambda n, x: n.layer(x) * torch.asarray(obj=(x.mean(),)),
    "a new tensor of a list": lambda n, x: n.layer(x) * x.new_tensor([x.mean()]),
    "an old new tensor of a list": lambda n, x: n.layer(x) * x.new([x.mean()]),
    "padding of a value": lambda n, x: n.layer(F.pad(x, (1, 1, 1, 1), value=x.min())),
    "in": lambda n, x: n.layer(x) * (0.0 in x),
    "equal": lambda n, x: n.layer(x) if torch.equal(x, x.flip(3)) else x,
    "written": written,
    "scripted": lambda n, x: n.layer(x) if swish(x).mean() > 0 else x,
    "found": lambda n, x: n.layer(x) if torch.nonzero(x > 1).shape[0] > 9 else x,
    "found by length": lambda n, x: n.layer(x) if len(x[x > 1]) > 9 else x,
    "found by number": lambda n, x: n.layer(x) * (x[:, 0][x[:, 1] > 1] + 1).numel().__int__(),
    "distinct": lambda n, x: n.layer(x) if x.round().unique().size(0) > 9 else x,
    "each found": lambda n, x: n.layer(x) * sum(i for i in x.round().unique()),
    "found in a flat picture": lambda n, x: n.layer(x) * len(x.flatten()[x.flatten() < 1] + 1),
    "all of it found": lambda n, x: n.layer(x) * x[:, :, x[0, 0] < 9].shape[2],
    "all places found": lambda n, x: n.layer(x) * torch.where(x[0, 0, 0] < 9)[0].shape[0],
    "found and more": lambda n, x: n.layer(x) * len(torch.cat([x[x > 9], torch.zeros(3)])),
    "found in a row": lambda n, x: n.layer(x) * len(torch.nonzero(x > 1).flatten()[1:]),
    "found and repeated": lambda n, x: n.layer(x) * len(x[x > 1].repeat(2)),
    "found, in windows": lambda n, x: n.layer(x) * x[x > 1].unfold(0, 5, 1).shape[0],
    "bytes of what is found": lambda n, x: n.layer(x) * x[x > 1].nbytes,
    "found in tens": lambda n, x: n.layer(x) * len(x[x > 1].split(10)),
    "how often each": lambda n, x: n.layer(x) * len(torch.bincount(x.flatten().abs().int())),
    "found in no picture of noise, nor an empty one": lambda n, x: (
        n.layer(x) * torch.nonzero(x.mean((2, 3)) > 5 * x.std((2, 3))).shape[0]
    ),
    "as many as there are channels": lambda n, x: n.layer(x) * x[:, :, largest(3, x)].shape[2],
    "selected": lambda n, x: n.layer(x) * int(torch.masked_select(x, x > 1).shape[0]),
}
FOLLOWED: dict[str, Callable[[Reading, Tensor], Any]] = {
    "a selection of all": lambda n, x: sized_like(x[torch.isfinite(x)].view(x.shape), x),
    "sizes": lambda n, x: n.layer(x) if x.shape[3] > 8 and len(x) == 1 and x.dim() == 4 else x,
    "a tensor of sizes": lambda n, x: n.layer(x) / x.new_tensor([*x.shape, n.scale]).sum(),
    "a tensor of a tensor": lambda n, x: n.layer(x) * torch.as_tensor(x.mean()),
    "padding": lambda n, x: n.layer(F.pad(x, (0, x.shape[3] % 2), value=n.scale)),
    "own numbers": lambda n, x: n.layer(x) if n.scale > 1 else x,
    "where": lambda n, x: torch.where(x.mean() > 0, n.layer(x), 0.0),
    "kind": lambda n, x: n.layer(x.to(n.layer.weight.dtype)) if x.is_floating_point() else x,
    "scripted": lambda n, x: n.layer(swish(x)) if swish(n.scale) > 0 and x.shape[3] > 8 else x,
    "what is found": lambda n, x: n.layer(x) - x[x > 1].sum(),
    "the mean of a part": lambda n, x: n.layer(x) * sized(x[:, :, x[0, 0] > 1].mean(2)),
    "written where found": lambda n, x: sized(n.layer(x).index_fill(3, columns(x), 0.0)),
    "number of what is found": lambda n, x: n.layer(x) / (x > 1).sum(),
    "coordinates": lambda n, x: n.layer(x) + sum(i.sum() for i in torch.nonzero(x).unbind(1)),
    "own numbers found": lambda n, x: n.layer(x) * torch.nonzero(n.layer.weight > 0).shape[0],
    "an index": lambda n, x: n.layer(x)[:, n.layer.weight.mean((1, 2, 3)) > 0],
    "a grid kept for its size": lambda n, x: n.layer(x) + n.grid_of(x),
    "a random part": lambda n, x: (
        F.dropout(n.layer(x), training=True) / n.layer(x)[:, torch.rand(5) > 0.5].shape[1]
    ),
    "a selection of its own": lambda n, x: (
        n.layer(x)[:, n.keep] * x.new_ones(n.layer(x)[:, n.keep].shape[2])
    ),
    "an order of its own": lambda n, x: n.layer(x) * sized_by(n.layer(x).mean((0, 2, 3))[n.order]),
    "repeats of its own": lambda n, x: sized_by(
        n.layer(x).repeat_interleave(n.order, 1)[0, :, 0, 0]
    ),
    "a count asked for": lambda n, x: n.layer(x) * per_class(n.layer(x).argmax(1)),
    "parts of what is found": lambda n, x: n.layer(x) * x[:, :, x[0, 0] > 1].chunk(3, 1)[0].sum(),
    "another size of what is found": lambda n, x: n.layer(x) * x[:, :, x[0, 0] > 1].size(1),
    "the one largest": lambda n, x: sized(n.layer(x) / x[x == x.max()]),
    "selected twice, scripted": lambda n, x: n.layer(x) + middle(x),
    "a size of a part": lambda n, x: n.layer(x)[:, : x.shape[1] // 2 + 1] * int(x[:, 0].numel()),
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_value_of_the_picture_that_python_reads_is_found(name: str) -> None:
    found = first_value_read(Reading(FROZEN[name]).eval(), torch.zeros(1, 3, 16, 16))
    assert found.startswith("test_trace.py:")


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_depends_on_no_value_of_the_picture_is_let_through(name: str) -> None:
    assert first_value_read(Reading(FOLLOWED[name]).eval(), torch.zeros(1, 3, 16, 16)) == ""


@pytest.mark.parametrize("habit", HABITS)
def test_ordinary_networks_are_let_through(habit: str) -> None:
    assert first_value_read(with_habit(habit), torch.zeros(1, 3, 48, 64)) == ""


def test_our_own_networks_are_let_through() -> None:
    graph = DeployGraph(FastSegNet(3, "nano"), 60, 44).eval()
    assert first_value_read(graph, torch.zeros(1, 44, 60, 3, dtype=torch.uint8)) == ""


@pytest.mark.parametrize("classes", [1, 2, 5, 19])
def test_our_own_class_map_is_let_through(classes: int) -> None:
    for rows in range(2, 12):  # so many cells of a picture are as many as another size
        class_map = CellClassMap(8, (classes, rows, 4), 8 * rows, 32).eval()
        assert first_value_read(class_map, torch.zeros(1, classes, rows, 4)) == ""


def test_such_a_network_is_refused_by_its_line() -> None:
    graph = DeployGraph(Reading(FROZEN["if"]), 16, 16).eval()
    with pytest.raises(ValueError, match=r'looks at values.*test_trace\.py:\d+: "if"') as said:
        float_graph(graph)
    assert "\n" not in str(said.value)


def into_a_part(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x)
    y[:, 2][x[:, 0] > 1] = 99.0
    return y


def into_rows_of_a_part(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x)
    y[:, 2][:, 3:9] = 99.0
    return y


def into_rows(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x)
    y[:, :, :8] = y[:, :, :8].flip(1)
    y[x.mean(1, keepdim=True).expand_as(y) > 1] = 3.0
    return y


@pytest.mark.parametrize("write", [into_a_part, into_rows_of_a_part])
@pytest.mark.parametrize("convert", [float_graph, tensorrt_onnx])
def test_a_write_into_a_part_of_a_part_that_gets_lost_is_refused_by_its_line(
    write: Callable[[Reading, Tensor], Any], convert: Callable[[DeployGraph], Any]
) -> None:
    with pytest.raises(ValueError, match=r"test_trace\.py:\d+: y\[:, 2\]\["):
        convert(DeployGraph(Reading(write), 16, 16).eval())


def into_a_part_beside_infinity(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x)
    y[:, 2][x[:, 0] > 1] = 9.0
    return y - torch.where(x[:, :1] > 0, torch.inf, 0.0)


def into_a_part_before_a_logarithm(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x).view(1, 5, 16, 16)
    y[:, 2] = 1.0
    return y.log()


def into_a_part_before_a_spectrum(n: Reading, x: Tensor) -> Tensor:
    y = n.layer(x).view(1, 5, 16, 16)
    y[:, 2] = 1.0
    return torch.fft.rfft2(y).real


def test_a_write_that_gets_lost_is_refused_beside_infinity_too() -> None:
    graph = DeployGraph(Reading(into_a_part_beside_infinity), 16, 16, output="logits").eval()
    with pytest.raises(ValueError, match=r"test_trace\.py:\d+: y\[:, 2\]\["):
        float_graph(graph)


def test_a_write_that_is_followed_is_taken_where_the_network_gives_no_number() -> None:
    graph = DeployGraph(Reading(into_a_part_before_a_logarithm), 16, 16, output="logits").eval()
    assert float_graph(graph).graph.node


def test_what_onnx_lacks_is_not_blamed_on_a_write() -> None:
    graph = DeployGraph(Reading(into_a_part_before_a_spectrum), 16, 16, output="logits").eval()
    with pytest.raises(ValueError, match="fft_rfft2") as said:
        float_graph(graph)
    assert "y[:, 2]" not in str(said.value)


def scaled_by_its_data(n: Reading, x: Tensor) -> Tensor:
    return n.layer(x) * x.data.mean()


@pytest.mark.parametrize("compute", [into_rows, scaled_by_its_data])
def test_a_write_into_rows_or_through_a_mask_is_followed_and_so_is_a_tensor_s_data(
    compute: Callable[[Reading, Tensor], Any],
) -> None:
    module = Reading(compute).eval()
    image = torch.randn(1, 3, 16, 16, generator=torch.manual_seed(0))
    session = InferenceSession(
        float_graph(DeployGraph(module, 16, 16, output="logits").eval()).SerializeToString()
    )
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    np.testing.assert_allclose(found, module(image).detach().numpy(), atol=1e-4)


def folded(n: Reading, x: Tensor) -> Tensor:
    return F.fold(F.unfold(n.layer(x), 3, padding=1), (16, 16), 3, padding=1)


def test_a_newer_opset_that_cannot_be_asked_for_is_not_advised() -> None:
    with pytest.raises(ValueError, match="col2im.* is not supported") as said:
        float_graph(DeployGraph(Reading(folded), 16, 16).eval())
    assert "version 18" not in str(said.value)


class Autocast(nn.Conv2d):
    """A network that leaves float32 by itself."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(3, 2, 3, padding=1)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", self.dtype):
            return super().forward(x)


def test_half_precision_inside_becomes_float() -> None:
    graph = float_graph(DeployGraph(Autocast(torch.float16), 16, 16).eval()).graph
    casts = {given.i for node in graph.node for given in node.attribute if given.name == "to"}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in graph.initializer} | casts


def test_bfloat16_inside_is_refused_by_its_name() -> None:
    graph = DeployGraph(Autocast(torch.bfloat16), 16, 16).eval()
    with pytest.raises(ValueError, match=r"its forward\(\) computes in bfloat16 \(autocast\)"):
        float_graph(graph)
