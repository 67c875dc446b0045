"""MobileNetV2 at width 1.0 (Sandler et al. 2018, arXiv:1801.04381), up to its last map at 1/32.

Layers are named as in torchvision, `features.0` to `features.17`; `rename` takes timm's names too.
Shape letters as in fastseg/fastsegnet.py.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from fastseg.backbones import BackboneVariant
from fastseg.blocks import ConvBNReLU, Stage
from fastseg.normalization import NAMED

STEM_CHANNELS = 32
ROWS = (  # of the paper's table 2
    Stage(16, 1, expansion=1),
    Stage(24, 2, expansion=6, stride=2),
    Stage(32, 3, expansion=6, stride=2),
    Stage(64, 4, expansion=6, stride=2),
    Stage(96, 3, expansion=6),
    Stage(160, 3, expansion=6, stride=2),
    Stage(320, 1, expansion=6),
)
LAST_8, LAST_16, LAST_32 = 6, 13, 17  # layers of `features`: the last ones at each scale
# Layers of a block: timm's name -> torchvision's; PLAIN is the one block that does not expand.
EXPANDING = {
    "conv_pw": "conv.0.0",
    "bn1": "conv.0.1",
    "conv_dw": "conv.1.0",
    "bn2": "conv.1.1",
    "conv_pwl": "conv.2",
    "bn3": "conv.3",
}
PLAIN = {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}


class MobileNetV2(nn.Module):
    """The backbone: a normalised image in, maps at 1/8, 1/16 and 1/32 out."""

    channels = (32, 96, 320)  # of the maps at 1/8, 1/16 and 1/32
    first_layers = ("features.0.0", "features.0.1")  # the convolution that sees pixels, its norm
    pixel_mean = tuple(255 * mean for mean in NAMED["imagenet"].mean)  # torchvision's and timm's
    pixel_std = tuple(255 * std for std in NAMED["imagenet"].std)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU(3, STEM_CHANNELS, 3, stride=2, relu=nn.ReLU6)]
        in_channels = STEM_CHANNELS
        for row in ROWS:
            for index in range(row.blocks):
                layers.append(Block(in_channels, row, row.stride if index == 0 else 1))
                in_channels = row.channels
        self.features = nn.Sequential(*layers)

    def forward(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps at 1/8, 1/16 and 1/32."""
        maps, x_NCHW = [], image_N3HW
        for layer in self.features:
            x_NCHW = layer(x_NCHW)
            maps.append(x_NCHW)
        return maps[LAST_8], maps[LAST_16], maps[LAST_32]

    @staticmethod
    def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of torchvision or timm under this class's names; others stay as named."""
        names = timm_names() if "conv_stem.weight" in weights else {}
        renamed = {}
        for name, value in weights.items():
            layer, _, tensor = name.rpartition(".")
            renamed[f"{names.get(layer, layer)}.{tensor}"] = value
        return renamed


class Block(nn.Module):
    """An inverted residual with ReLU6."""

    def __init__(self, in_channels: int, row: Stage, stride: int) -> None:
        super().__init__()
        hidden = in_channels * row.expansion
        layers: list[nn.Module] = []
        if row.expansion > 1:
            layers.append(ConvBNReLU(in_channels, hidden, 1, relu=nn.ReLU6))
        layers += [
            ConvBNReLU(hidden, hidden, 3, stride, groups=hidden, relu=nn.ReLU6),
            nn.Conv2d(hidden, row.channels, 1, bias=False),
            nn.BatchNorm2d(row.channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == row.channels

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, row.channels, H / stride, W / stride)."""
        y_NCHW: Tensor = self.conv(x_NCHW)
        return x_NCHW + y_NCHW if self.residual else y_NCHW


def timm_names() -> dict[str, str]:
    """Return timm's name of each layer -> torchvision's."""
    names = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    place = 1
    for stage, row in enumerate(ROWS):
        for index in range(row.blocks):
            layers = EXPANDING if row.expansion > 1 else PLAIN
            for theirs, ours in layers.items():
                names[f"blocks.{stage}.{index}.{theirs}"] = f"features.{place}.{ours}"
            place += 1
    return names


VARIANTS = {"mobilenetv2": BackboneVariant(MobileNetV2, decoder_channels=80, head_channels=64)}
