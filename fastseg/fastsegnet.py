"""FastSegNet: a real-time segmentation network for edge devices, the whole of it.

Shape letters: N batch, K classes, H and W pixels; digits after h and w name the stride:
x_NCh8w8 is a map at 1/8 of the padded image.
"""

from typing import Literal, overload

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.backbones import Backbone, BackboneVariant
from fastseg.blocks import (
    AttentionRefinement,
    ConvBNReLU,
    FeatureFusion,
    global_average,
    make_stages,
)
from fastseg.outputs import MAX_CLASSES
from fastseg.variants import VARIANTS, Variant

STRIDE = 32  # of the deepest map: images are padded to a multiple of it
LOGITS_STRIDE = 8


class Head(nn.Sequential):
    """A 3x3 convolution and the 1x1 classifier."""

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__(
            ConvBNReLU(in_channels, hidden_channels, kernel_size=3),
            nn.Conv2d(hidden_channels, num_classes, kernel_size=1),
        )


class FastSegNet(nn.Module):
    """Encoder of inverted residuals, ARM at 1/16 and 1/32, FFM and head at 1/8.

    Args:
        num_classes: number of classes, 1 to 255.
        variant: of VARIANTS: "nano" to "large", or with a backbone of others, such as "lite".
        auxiliary: add the two heads at 1/16 and 1/32 that only training uses.
    """

    def __init__(self, num_classes: int, variant: str = "base", auxiliary: bool = True) -> None:
        super().__init__()
        if not 1 <= num_classes <= MAX_CLASSES:  # uint8 ids tell so many from "ignore"
            raise ValueError(f"num_classes is {num_classes}; expected 1 to {MAX_CLASSES}")
        if variant not in VARIANTS:
            raise ValueError(f"no variant {variant!r}; choose one of {sorted(VARIANTS)}")
        self.num_classes, self.variant = num_classes, variant
        shape = VARIANTS[variant]
        self.backbone: Backbone | None = None
        if isinstance(shape, BackboneVariant):
            self.backbone = shape.make()
            channels = self.backbone.channels
        else:
            channels = self.make_encoder(shape)
        self.make_decoder(channels, shape.decoder_channels, shape.head_channels, auxiliary)

    def make_encoder(self, widths: Variant) -> tuple[int, int, int]:
        """Add an encoder of our own; return the channels of its maps at 1/8, 1/16 and 1/32."""
        channels_2, channels_4 = widths.stem
        stages = (widths.stages_8, widths.stages_16, widths.stages_32)
        channels_8, channels_16, channels_32 = (blocks[-1].channels for blocks in stages)
        self.stem = nn.Sequential(
            ConvBNReLU(3, channels_2, kernel_size=3, stride=2),
            ConvBNReLU(channels_2, channels_4, kernel_size=3, stride=2),
        )
        self.stage_8 = make_stages(channels_4, widths.stages_8)
        self.stage_16 = make_stages(channels_8, widths.stages_16)
        self.stage_32 = make_stages(channels_16, widths.stages_32)
        return channels_8, channels_16, channels_32

    def make_decoder(
        self, channels: tuple[int, int, int], decoder: int, head: int, auxiliary: bool
    ) -> None:
        """Add all that follows the encoder, whose maps have these channels at 1/8, 1/16, 1/32."""
        channels_8, channels_16, channels_32 = channels
        self.context = ConvBNReLU(channels_32, decoder, kernel_size=1)
        self.refine_32 = AttentionRefinement(channels_32, decoder)
        self.refine_16 = AttentionRefinement(channels_16, decoder)
        self.fuse = FeatureFusion(channels_8, decoder)
        self.head = Head(decoder, head, self.num_classes)
        self.auxiliary_heads = nn.ModuleList(
            [Head(decoder, head, self.num_classes) for _ in range(2 * auxiliary)]
        )

    def encode(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's maps at 1/8, 1/16 and 1/32."""
        if self.backbone is not None:
            return self.backbone(image_N3HW)
        x_NCh8w8 = self.stage_8(self.stem(image_N3HW))
        x_NCh16w16 = self.stage_16(x_NCh8w8)
        return x_NCh8w8, x_NCh16w16, self.stage_32(x_NCh16w16)

    def features(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder's maps at 1/8, 1/16 and 1/32, all of the decoder's width."""
        x_NCh8w8, x_NCh16w16, x_NCh32w32 = self.encode(image_N3HW)
        vector_NC11 = self.context(global_average(x_NCh32w32))
        y_NCh32w32 = self.refine_32(x_NCh32w32) + vector_NC11
        y_NCh16w16 = self.refine_16(x_NCh16w16) + upsample(y_NCh32w32, 2)
        y_NCh8w8 = self.fuse(x_NCh8w8, upsample(y_NCh16w16, 2))
        return y_NCh8w8, y_NCh16w16, y_NCh32w32

    def logits(self, image_N3HW: Tensor) -> Tensor:
        """Return the logits at 1/8, (N, K, H/8, W/8); H and W must be multiples of 32."""
        logits_NKh8w8: Tensor = self.head(self.features(image_N3HW)[0])
        return logits_NKh8w8

    @overload
    def forward(self, image_N3HW: Tensor, auxiliary: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, image_N3HW: Tensor, auxiliary: Literal[True]) -> list[Tensor]: ...

    def forward(self, image_N3HW: Tensor, auxiliary: bool = False) -> Tensor | list[Tensor]:
        """Segment normalised images of any size.

        Args:
            image_N3HW: float RGB images, normalised as (x - 128) / 64.
            auxiliary: return the logits of the training heads too.

        Returns:
            Logits (N, K, H, W); with auxiliary a list of such maps, the main one first.

        Raises:
            ValueError: the input is not a float tensor of shape (N, 3, H, W).
        """
        check_image(image_N3HW)
        height, width = image_N3HW.shape[-2:]
        padded_N3HW = pad_to_stride(image_N3HW)
        if not auxiliary:
            return upsample_to(self.logits(padded_N3HW), LOGITS_STRIDE, height, width)
        maps = self.features(padded_N3HW)
        heads = [self.head, *self.auxiliary_heads]
        return [
            upsample_to(head(x), LOGITS_STRIDE << level, height, width)
            for level, (head, x) in enumerate(zip(heads, maps, strict=False))
        ]


def check_image(image_N3HW: Tensor) -> None:
    """Raise ValueError unless the tensor is a batch of float RGB images."""
    if image_N3HW.ndim != 4 or image_N3HW.shape[1] != 3:
        raise ValueError(
            f"expected a batch of RGB images, (N, 3, H, W); got {tuple(image_N3HW.shape)}. "
            "A single image needs image[None], an (H, W, 3) array image.permute(2, 0, 1)[None]"
        )
    if not image_N3HW.is_floating_point():
        raise ValueError(
            f"expected float images normalised as (x - 128) / 64; got {image_N3HW.dtype}. "
            "For uint8 frames use fastseg.deploy.DeployGraph or fastseg_runtime"
        )


def pad_to_stride(image_N3HW: Tensor) -> Tensor:
    """Pad right and bottom with zeros (mid-grey) up to multiples of STRIDE."""
    height, width = image_N3HW.shape[-2:]
    right, bottom = -width % STRIDE, -height % STRIDE
    return F.pad(image_N3HW, (0, right, 0, bottom)) if right or bottom else image_N3HW


def upsample(x_NCHW: Tensor, factor: int) -> Tensor:
    """Bilinear by a whole factor, half-pixel centres: the one resize that all engines share."""
    return F.interpolate(x_NCHW, scale_factor=float(factor), mode="bilinear", align_corners=False)


def upsample_to(logits_NKhw: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Upsample logits of a padded image to the image itself, (N, K, height, width).

    What covers the padding alone is cut off before the upsampling, which then costs nothing.
    """
    rows, columns = -(-height // stride), -(-width // stride)
    return upsample(logits_NKhw[..., :rows, :columns], stride)[..., :height, :width]
