"""Kinds of operations that networks of others have and ours has not, each as a small module.

All of them stand side by side in one network (`SideBySide`), each giving one class its logits:
one conversion tells of every kind, and which of them is wrong.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8  # of the map that each kind is given, whose sides are odd: 13 x 9
SIZE = (52, 36)  # width and height of the picture


class Op(nn.Module):
    """A function as a module, whose weights are modules of its own."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x_NChw: Tensor) -> Tensor:
        return self.function(x_NChw, *self.layers)


def _tokens(x_NChw: Tensor) -> Tensor:
    return x_NChw.flatten(2).transpose(1, 2)


def _layer_norm(x_NChw: Tensor, norm: nn.Module) -> Tensor:
    return norm(x_NChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _channel_norm(x_NChw: Tensor) -> Tensor:  # ConvNeXt's, written out
    mean = x_NChw.mean(1, keepdim=True)
    return (x_NChw - mean) / torch.sqrt((x_NChw - mean).pow(2).mean(1, keepdim=True) + 1e-6)


def _attention(x_NChw: Tensor, to_q: nn.Module, to_k: nn.Module, to_v: nn.Module) -> Tensor:
    q, k, v = to_q(_tokens(x_NChw)), to_k(_tokens(x_NChw)), to_v(_tokens(x_NChw))
    weights = (q @ k.transpose(-2, -1) / CHANNELS**0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(x_NChw.shape)


def _heads(x_NChw: Tensor) -> Tensor:
    parts = _tokens(x_NChw).unflatten(2, (2, CHANNELS // 2)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(parts, parts, parts)
    return mixed.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x_NChw.shape)


def _multihead(x_NChw: Tensor, attention: nn.Module) -> Tensor:
    x_NLC = _tokens(x_NChw)
    mixed = attention(x_NLC, x_NLC, x_NLC, need_weights=False)[0]
    return mixed.transpose(1, 2).reshape(x_NChw.shape)


def _linear_attention(x_NChw: Tensor) -> Tensor:  # as EfficientViT has it
    x_NCL = x_NChw.flatten(2)
    keys = x_NCL.relu()
    return ((x_NCL @ keys.mT) @ keys / (keys.sum(-1, keepdim=True) + 1)).reshape(x_NChw.shape)


def _similarity(x_NChw: Tensor) -> Tensor:  # of two maps, as PIDNet has it
    weight = torch.sigmoid((x_NChw * x_NChw.flip(3)).sum(dim=1).unsqueeze(1))
    return weight * x_NChw + (1 - weight) * x_NChw.abs()


def _shuffle(x_NChw: Tensor) -> Tensor:
    return x_NChw.unflatten(1, (2, CHANNELS // 2)).transpose(1, 2).flatten(1, 2)


def _channel_attention(x_NChw: Tensor, conv: nn.Module) -> Tensor:  # ECA's
    gate = conv(x_NChw.mean((2, 3)).unsqueeze(1))
    return x_NChw * gate.transpose(1, 2).unsqueeze(3).sigmoid()


def _resized(**how: object) -> Callable[[], nn.Module]:
    def grown_back(x: Tensor) -> Tensor:
        return F.interpolate(x, **how)  # type: ignore[arg-type]

    return lambda: Op(grown_back)


def _transposed(*sizes: int, **how: int) -> Callable[[], nn.Module]:
    return lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, *sizes, **how)


def _linear() -> nn.Module:
    return nn.Linear(CHANNELS, CHANNELS)


def _dilated(rate: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, 1, rate, rate, groups)


BILINEAR: dict[str, object] = {"mode": "bilinear", "align_corners": False}
CORNERS: dict[str, object] = {"mode": "bilinear", "align_corners": True}
OPERATORS: Mapping[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: Op(_layer_norm, nn.LayerNorm(CHANNELS)),
    "layer norm of tokens": lambda: Op(
        lambda x, norm: norm(_tokens(x)).mT.reshape(x.shape), nn.LayerNorm(CHANNELS)
    ),
    "layer norm, written out": lambda: Op(_channel_norm),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "instance norm": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "attention by matmul": lambda: Op(_attention, _linear(), _linear(), _linear()),
    "attention of torch": lambda: Op(_heads),
    "multi-head attention": lambda: Op(
        _multihead, nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
    ),
    "linear attention": lambda: Op(_linear_attention),
    "softmax over classes": lambda: nn.Softmax2d(),
    "similarity of maps": lambda: Op(_similarity),
    "GELU": lambda: nn.GELU(),
    "GELU by tanh": lambda: nn.GELU("tanh"),
    "hard swish": lambda: nn.Hardswish(),
    "Mish": lambda: nn.Mish(),
    "PReLU": lambda: nn.PReLU(CHANNELS),
    "channel attention": lambda: Op(_channel_attention, nn.Conv1d(1, 1, 3, padding=1, bias=False)),
    "channel shuffle": lambda: Op(_shuffle),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "length 1": lambda: Op(lambda x: F.normalize(x, dim=1)),
    "largest of two": lambda: Op(lambda x: torch.maximum(x, x.flip(2))),
    "positions": lambda: Op(lambda x: x + torch.linspace(-1.0, 1.0, x.shape[3])),
    "roll": lambda: Op(lambda x: x.roll((2, -3), (2, 3))),
    "up to a size": _resized(size=(27, 41), **BILINEAR),
    "down to a size": _resized(size=(5, 6), **BILINEAR),
    "up to a size, corners": _resized(size=(27, 41), **CORNERS),
    "up by 1.5": _resized(scale_factor=1.5, **BILINEAR),
    "down by 2": _resized(scale_factor=0.5, **BILINEAR),
    "down by 2, factor recomputed": _resized(
        scale_factor=0.5, recompute_scale_factor=True, **BILINEAR
    ),
    "nearest to a size": _resized(size=(20, 31)),
    "nearest down by 2": _resized(scale_factor=0.5),
    "nearest by 1.5": _resized(scale_factor=1.5),
    "nearest of centres": _resized(size=(20, 31), mode="nearest-exact"),
    "adaptive pooling, uneven": lambda: nn.AdaptiveAvgPool2d((2, 6)),
    "adaptive pooling, even": lambda: nn.AdaptiveAvgPool2d((3, 13)),
    "adaptive pooling of rows": lambda: nn.AdaptiveAvgPool2d((None, 1)),
    "adaptive maximum, uneven": lambda: nn.AdaptiveMaxPool2d((2, 6)),
    "average pooling, ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "average pooling, inside": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "maximum pooling, ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "transposed convolution": _transposed(2, 2),
    "transposed convolution, 3 by 2": _transposed(3, 2, 1, 1),
    "transposed convolution, 4 by 2": _transposed(4, 2, 1),
    "transposed convolution, groups": _transposed(4, 2, 1, groups=CHANNELS),
    "transposed convolution, dilated": _transposed(3, 2, 2, 1, dilation=2),
    "dilated convolution": lambda: _dilated(4),
    "dilated convolution by more than the map": lambda: _dilated(17),
    "dilated depthwise convolution": lambda: _dilated(3, groups=CHANNELS),
    "asymmetric convolutions": lambda: nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, (5, 1), padding=(2, 0)),
        nn.Conv2d(CHANNELS, CHANNELS, (1, 3), padding=(0, 2), dilation=(1, 2)),
    ),
}


class SideBySide(nn.Module):
    """A network whose class k has as its logits what operation k made of the same map.

    What is smaller than the map is filled up with zeros, what is larger is cut: by nothing that is
    under test.
    """

    def __init__(self, operators: Mapping[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, CHANNELS, 4, 4)
        self.kinds = nn.ModuleList(make() for make in operators.values())

    def forward(self, image_N3HW: Tensor) -> Tensor:
        x_NChw = self.stem(image_N3HW)
        rows, columns = x_NChw.shape[2:]
        planes = []
        for kind in self.kinds:
            y = kind(x_NChw)[:, :2].sum(1, keepdim=True)
            y = y[..., :rows, :columns]
            planes.append(F.pad(y, (0, columns - y.shape[3], 0, rows - y.shape[2])))
        return torch.cat(planes, 1)


class Unpooling(nn.Module):
    """A network that puts back what it pooled, as ENet does: no format can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 4, 4)
        self.grow = nn.ModuleList([nn.Identity(), nn.MaxUnpool2d(2)])
        self.head = nn.Conv2d(CHANNELS, 3, 1)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        x_NChw = self.stem(image_N3HW)
        small, indices = F.max_pool2d(x_NChw, 2, return_indices=True)
        unpool = self.grow[1]
        return self.head(unpool(small, indices, output_size=x_NChw.shape[2:]))
