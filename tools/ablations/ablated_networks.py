"""FastSegNet-nano with one choice of its design changed at a time.

Each factory serves wherever a network of one's own does, with this folder on PYTHONPATH:

    fastseg-train --model ablated_networks:concat_fusion --data camvid:PATH

Shape letters as in fastseg/fastsegnet.py.
"""

import dataclasses

import torch
from torch import Tensor, nn

from fastseg import VARIANTS, FastSegNet
from fastseg.blocks import ChannelGate, ConvBNReLU, global_average, make_stages
from fastseg.fastsegnet import Head, pad_to_stride, upsample, upsample_to

NANO = VARIANTS["nano"]
POOLS = (3, 5, 9)  # of the pyramid: on a map at 1/32, up to half of a CamVid picture's width
SKIP_CHANNELS = 16  # at 1/4


def reference(num_classes: int) -> FastSegNet:
    """Return nano as it is."""
    return FastSegNet(num_classes, "nano")


def fused_at_8(num_classes: int) -> FastSegNet:
    """Return nano with fused blocks at 1/8, expansion 2, as small has them."""
    network = FastSegNet(num_classes, "nano")
    stages = [dataclasses.replace(s, fused=True, expansion=2) for s in NANO.stages_8]
    network.stage_8 = make_stages(NANO.stem[1], tuple(stages))
    return network


def concat_fusion(num_classes: int) -> FastSegNet:
    """Return nano with the FFM of the BiSeNet paper: concatenate, 1x1, gate."""
    network = FastSegNet(num_classes, "nano")
    network.fuse = ConcatFusion(NANO.stages_8[-1].channels, NANO.decoder_channels)  # type: ignore[assignment]
    return network


def pyramid_pooling(num_classes: int) -> FastSegNet:
    """Return nano with spatial pyramid pooling instead of the ARM at 1/32."""
    network = FastSegNet(num_classes, "nano")
    network.refine_32 = PyramidPooling(NANO.stages_32[-1].channels, NANO.decoder_channels)  # type: ignore[assignment]
    return network


def dilated(num_classes: int) -> FastSegNet:
    """Return nano that dilates its last stage and stays at 1/16, instead of striding to 1/32."""
    return DilatedNet(num_classes)


def quarter_skip(num_classes: int) -> FastSegNet:
    """Return nano whose head works at 1/4, with a skip of 16 channels from there."""
    return QuarterSkipNet(num_classes)


def dupsample(num_classes: int) -> FastSegNet:
    """Return nano whose head gives each cell of 1/8 four vectors of logits, a map at 1/4."""
    return DUpsampleNet(num_classes)


class ConcatFusion(nn.Module):
    """FFM of BiSeNet (Yu et al. 2018, arXiv:1808.00897)."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.mix = ConvBNReLU(skip_channels + channels, channels, kernel_size=1)
        self.gate = ChannelGate(channels)

    def forward(self, detail_NCHW: Tensor, context_NCHW: Tensor) -> Tensor:
        """Fuse maps of equal size; return (N, channels, H, W)."""
        mixed_NCHW: Tensor = self.mix(torch.cat([detail_NCHW, context_NCHW], 1))
        gated_NCHW: Tensor = self.gate(mixed_NCHW)
        return mixed_NCHW + gated_NCHW


class PyramidPooling(nn.Module):
    """The map beside its averages over growing windows, then 1x1 (He et al. 2015, 1406.4729)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(
            nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)
            for size in POOLS
        )
        self.mix = ConvBNReLU(in_channels * (1 + len(POOLS)), channels, kernel_size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, channels, H, W)."""
        mixed: Tensor = self.mix(torch.cat([x_NCHW, *(pool(x_NCHW) for pool in self.pools)], 1))
        return mixed


class DilatedNet(FastSegNet):
    """Nano with output stride 16: the maps called 1/32 are at 1/16."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, "nano")
        for layer in self.stage_32.modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (2, 2)

    def features(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder's maps at 1/8, 1/16 and 1/16."""
        x_NCh8w8, x_NCh16w16, deep_NCh16w16 = self.encode(image_N3HW)
        vector_NC11 = self.context(global_average(deep_NCh16w16))
        context_NCh16w16 = self.refine_32(deep_NCh16w16) + vector_NC11
        y_NCh16w16 = self.refine_16(x_NCh16w16) + context_NCh16w16
        return self.fuse(x_NCh8w8, upsample(y_NCh16w16, 2)), y_NCh16w16, context_NCh16w16


class LogitsAtQuarter(FastSegNet):
    """A network with logits at 1/4 (fastseg.DeployGraph takes it at multiples of 32 alone)."""

    def forward(self, image_N3HW: Tensor) -> Tensor:  # type: ignore[override]
        """Return logits (N, K, H, W)."""
        height, width = image_N3HW.shape[-2:]
        return upsample_to(self.logits(pad_to_stride(image_N3HW)), 4, height, width)


class QuarterSkipNet(LogitsAtQuarter):
    """Nano whose head sees the map at 1/4 beside what the decoder made."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, "nano")
        self.skip_4 = ConvBNReLU(NANO.stem[1], SKIP_CHANNELS, kernel_size=1)
        self.head = Head(NANO.decoder_channels + SKIP_CHANNELS, NANO.head_channels, num_classes)

    def features(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps at 1/4 for the head, and at 1/16 and 1/32 for the auxiliary ones."""
        x_NCh4w4 = self.stem(image_N3HW)
        x_NCh8w8 = self.stage_8(x_NCh4w4)
        x_NCh16w16 = self.stage_16(x_NCh8w8)
        x_NCh32w32 = self.stage_32(x_NCh16w16)
        vector_NC11 = self.context(global_average(x_NCh32w32))
        y_NCh32w32 = self.refine_32(x_NCh32w32) + vector_NC11
        y_NCh16w16 = self.refine_16(x_NCh16w16) + upsample(y_NCh32w32, 2)
        y_NCh8w8 = self.fuse(x_NCh8w8, upsample(y_NCh16w16, 2))
        y_NCh4w4 = torch.cat([upsample(y_NCh8w8, 2), self.skip_4(x_NCh4w4)], 1)
        return y_NCh4w4, y_NCh16w16, y_NCh32w32


class DUpsampleNet(LogitsAtQuarter):
    """Nano with learnt upsampling to 1/4 (DUpsampling, Tian et al. 2019, arXiv:1903.02120)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, "nano")
        head = Head(NANO.decoder_channels, NANO.head_channels, 4 * num_classes)
        self.head = nn.Sequential(*head, nn.PixelShuffle(2))  # type: ignore[assignment]
