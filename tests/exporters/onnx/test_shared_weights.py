"""Quantizers rewrite tensors, and a tensor may serve more than one call."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.onnx import to_onnx_int8
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.tensorrt import to_tensorrt
from fastseg_exporters.tensorrt.to_tensorrt import tensorrt_onnx
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.backend_onnxruntime import as_another_means_it
from torch import Tensor, nn

from fastseg import DeployGraph
from tests.doubles.folding_networks import CHANNELS, CLASSES, Habit, conv, with_habit

WIDTH, HEIGHT = 64, 48


def in_a_loop(n: Habit, x: Tensor) -> Tensor:
    return n.conv(torch.relu(n.conv(x)))


def computed(n: Habit, x: Tensor) -> Tensor:
    """Filter with what the picture itself gives, as attention over channels does."""
    weight_NC = n.mix(x.mean((2, 3)))
    return F.conv2d(x, weight_NC.reshape(CHANNELS, CHANNELS, 1, 1))


class Scaling(nn.Conv2d):
    """Takes bytes back out of the normalised image first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 64 + 128)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a convolution in a loop": lambda: Habit(in_a_loop, conv=conv()),
    "tied weights": lambda: with_habit("tied weights"),
    "a weight used by hand": lambda: with_habit("a weight used by hand"),
    "a computed weight": lambda: Habit(computed, mix=nn.Linear(CHANNELS, CHANNELS**2)),
    "a scaled image": lambda: Scaling(3, CLASSES, 3, stride=4, padding=1),
}


def images() -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]


def weights_in_int8(graph: DeployGraph) -> onnx.ModelProto:
    return take_bytes(to_onnx_int8.quantize_weights(float_graph(graph)), graph)


def int8(graph: DeployGraph) -> onnx.ModelProto:
    model = to_onnx_int8.quantize(float_graph(graph), images(), graph.mean, graph.std)
    return take_bytes(model, graph)


def tensorrt_int8(graph: DeployGraph) -> onnx.ModelProto:
    return to_tensorrt.quantize(tensorrt_onnx(graph), images(), graph.mean, graph.std)


@pytest.mark.parametrize("convert", [weights_in_int8, int8, tensorrt_int8])
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_is_near_the_module_whatever_is_shared(
    name: str, convert: Callable[[DeployGraph], onnx.ModelProto]
) -> None:
    torch.manual_seed(0)
    network, image_1HW3 = NETWORKS[name]().eval(), images()[0]
    model = convert(DeployGraph(network, WIDTH, HEIGHT, output="logits").eval())
    options = onnxruntime.SessionOptions()
    if convert is tensorrt_int8:  # as the runtime judges it
        as_another_means_it(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (found,) = session.run(None, {"image": image_1HW3})
    x_N3HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(x_N3HW).numpy()
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()
