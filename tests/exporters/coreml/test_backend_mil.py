"""Layers of PyTorch through coremltools and back: the evaluator against the real converter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph

pytest.importorskip("coremltools", reason="needs coremltools: pip install 'fastseg-edge[coreml]'")
from fastseg_exporters.coreml import to_coreml
from fastseg_exporters.coreml.backend_mil import read_program
from fastseg_exporters.coreml.mil_program import Evaluator
from fastseg_exporters.coreml.to_coreml import save, trace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Function _TORCH_OPS_REGISTRY:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up <Temporary:ResourceWarning"),
]
WIDTH, HEIGHT = 24, 16


class Layer(nn.Module):
    """A convolution to eight channels, then the layer in question."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer = layer  # a module is registered, a function is kept

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.widen(x))


def shuffle_channels(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def add_chunks(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return (a - 2 * b) / (1 + b.sigmoid().mean(dim=(2, 3), keepdim=True))


class SqueezeExcite(nn.Module):
    """A channel gate of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.gate(F.adaptive_avg_pool2d(x, 1).squeeze((2, 3))).sigmoid()
        return x * weight[:, :, None, None]


def different_slopes() -> nn.PReLU:
    prelu = nn.PReLU(8)
    nn.init.uniform_(prelu.weight)
    return prelu


LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch norm alone": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)),
    "batch norm without statistics": nn.BatchNorm2d(8, track_running_stats=False),
    "flip": lambda x: x.flip(1, 3),
    "squeeze and excite": SqueezeExcite(),
    "grouped dilated convolution": nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=4),
    "same convolution": nn.Conv2d(8, 4, (3, 5), padding="same"),
    "transposed convolution": nn.ConvTranspose2d(8, 4, 3, 2, 1, groups=2),
    "transposed convolution, padded output": nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
    "max pooling": nn.MaxPool2d(3, 2, 1),
    "max pooling, ceiling": nn.MaxPool2d(2, 3, ceil_mode=True),
    "average pooling": nn.AvgPool2d(3, 2, 1),
    "average pooling without padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adaptive pooling": nn.AdaptiveAvgPool2d((4, 3)),
    "global pooling": nn.AdaptiveAvgPool2d(1),
    "reflection padding": nn.ReflectionPad2d((1, 2, 3, 0)),
    "replication padding": nn.ReplicationPad2d((1, 2, 3, 0)),
    "constant padding": nn.ConstantPad2d((1, 2, 3, 0), 0.5),
    "bilinear by a factor": nn.Upsample(scale_factor=4, mode="bilinear"),
    "bilinear to odd sizes": nn.Upsample((29, 37), mode="bilinear"),
    "bilinear downwards": nn.Upsample((5, 7), mode="bilinear"),
    "bilinear with corners": nn.Upsample((29, 37), mode="bilinear", align_corners=True),
    "nearest": nn.Upsample(scale_factor=2),
    "pixel shuffle": nn.PixelShuffle(2),
    "channel shuffle": shuffle_channels,
    "chunks": add_chunks,
    "strided slice": lambda x: x[:, 1:7, ::2, 1:-1],
    "leaky relu": nn.LeakyReLU(0.2),
    "prelu": different_slopes(),
    "prelu of one slope": nn.PReLU(8, 0.3),
    "relu6": nn.ReLU6(),
    "hard swish": nn.Hardswish(),
    "hard sigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "clamp": lambda x: x.clamp(-0.5, 0.8),
    "softmax": nn.Softmax(1),
    "concatenation": lambda x: torch.cat([x, F.relu(x), x], 1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_pytorch_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = DeployGraph(Layer(LAYERS[name]), WIDTH, HEIGHT, output="logits").eval()
    save(to_coreml.convert(trace(graph), graph), tmp_path / "layer.mlpackage")
    image_1HW3 = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    result = Evaluator(read_program(tmp_path / "layer.mlpackage"))(image_1HW3)
    with torch.inference_mode():
        expected = graph(image_1HW3)
    assert result.shape == expected.shape
    assert torch.allclose(result, expected, rtol=5e-3, atol=5e-3)  # fp16 has 11 bits
