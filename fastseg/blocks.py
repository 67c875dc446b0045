"""The building blocks of FastSegNet.

Shape letters: N batch, C channels, H and W pixels of the map at hand.
Only ReLU, fixed strides and no dilation: every engine runs and quantizes these well.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One run of equal inverted residual blocks."""

    channels: int
    blocks: int
    expansion: int
    kernel_size: int = 3
    stride: int = 1  # of the first block; the others have stride 1
    fused: bool = False  # expansion by a dense kxk convolution instead of 1x1 + depthwise kxk


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch normalisation and, but for None, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        relu: type[nn.ReLU] | type[nn.ReLU6] | None = nn.ReLU,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                kernel_size // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if relu is not None:
            layers.append(relu(inplace=True))
        super().__init__(*layers)


class DepthwiseSeparableConv(nn.Sequential):
    """Depthwise kxk, then pointwise 1x1 (MobileNet, Howard et al. 2017, arXiv:1704.04861).

    A dense kxk convolution costs k*k*C_in*C_out multiply-adds per pixel, this pair
    C_in*(k*k + C_out): 8 to 9 times fewer at k = 3 and the widths used here.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(
            ConvBNReLU(in_channels, in_channels, kernel_size, stride, groups=in_channels),
            ConvBNReLU(in_channels, out_channels, kernel_size=1, relu=None),
        )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter depthwise, narrow linearly (MobileNetV2, arXiv:1801.04381).

    A fused one widens by one dense kxk instead (EfficientNetV2, arXiv:2104.00298): more
    multiply-adds than the depthwise form, less memory traffic. On large maps that is the better
    bargain on CPUs, GPUs and NPUs alike.
    """

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        hidden, out, size = in_channels * stage.expansion, stage.channels, stage.kernel_size
        self.project: nn.Sequential
        if stage.fused:
            self.expand = ConvBNReLU(in_channels, hidden, size, stride)
            self.project = ConvBNReLU(hidden, out, kernel_size=1, relu=None)
        else:
            self.expand = ConvBNReLU(in_channels, hidden, kernel_size=1)
            self.project = DepthwiseSeparableConv(hidden, out, size, stride)
        self.residual = stride == 1 and in_channels == out

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, stage.channels, H / stride, W / stride)."""
        y_NCHW: Tensor = self.project(self.expand(x_NCHW))
        return x_NCHW + y_NCHW if self.residual else y_NCHW


def make_stages(in_channels: int, stages: tuple[Stage, ...]) -> nn.Sequential:
    """Chain the blocks of several stages; only the first block of a stage strides."""
    blocks: list[nn.Module] = []
    for stage in stages:
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            blocks.append(InvertedResidual(in_channels, stage, stride))
            in_channels = stage.channels
    return nn.Sequential(*blocks)


def global_average(x_NCHW: Tensor) -> Tensor:
    """Return the mean over all pixels, (N, C, 1, 1); exports as one reduction everywhere."""
    return x_NCHW.mean(dim=(2, 3), keepdim=True)


class ChannelGate(nn.Module):
    """Weigh channels by a sigmoid of their global average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the input, each channel scaled by a factor in (0, 1)."""
        weight_NC11 = torch.sigmoid(self.weigh(global_average(x_NCHW)))
        return x_NCHW * weight_NC11


class AttentionRefinement(nn.Module):
    """ARM of BiSeNet (Yu et al. 2018, arXiv:1808.00897): to decoder width, then a channel gate.

    Departure from the paper: 1x1 instead of 3x3 in front of the gate, since the maps below
    1/8 already have a wide field of view and the 3x3 would be the largest layer of nano.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = ConvBNReLU(in_channels, out_channels, kernel_size=1)
        self.gate = ChannelGate(out_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        refined: Tensor = self.gate(self.reduce(x_NCHW))
        return refined


class FeatureFusion(nn.Module):
    """FFM of BiSeNet that adds instead of concatenating, then a dense 3x3 and a channel gate.

    RegSeg's ablation (Gao 2021, arXiv:2111.09957) found sum + 3x3 one point above BiSeNet's
    concat + 1x1 at equal cost; the gated map is added back as in the BiSeNet paper.
    """

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = ConvBNReLU(skip_channels, channels, kernel_size=1, relu=None)
        self.mix = ConvBNReLU(channels, channels, kernel_size=3)
        self.gate = ChannelGate(channels)

    def forward(self, detail_NCHW: Tensor, context_NCHW: Tensor) -> Tensor:
        """Fuse maps of equal size; return (N, channels, H, W)."""
        mixed_NCHW: Tensor = self.mix(torch.relu(self.skip(detail_NCHW) + context_NCHW))
        gated_NCHW: Tensor = self.gate(mixed_NCHW)
        return mixed_NCHW + gated_NCHW
