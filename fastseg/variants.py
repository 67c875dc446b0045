"""The variants of FastSegNet as data: a new one is a new row in VARIANTS.

Widths are multiples of 16, the granule of int8 GPU kernels. Why dense (fused) blocks
stand at 1/8 and depthwise ones only deeper is told in docs/network.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One run of equal inverted residual blocks."""

    channels: int
    blocks: int
    expansion: int
    kernel_size: int = 3
    stride: int = 1  # of the first block; the others have stride 1
    fused: bool = False  # expansion by a dense kxk convolution instead of 1x1 + depthwise kxk


@dataclass(frozen=True)
class Variant:
    """All widths and depths of one network."""

    stem: tuple[int, int]  # channels at 1/2 and 1/4
    stages_8: tuple[Stage, ...]
    stages_16: tuple[Stage, ...]
    stages_32: tuple[Stage, ...]
    decoder_channels: int
    head_channels: int


@dataclass(frozen=True)
class BackboneVariant:
    """A network of others in front of the same decoder."""

    backbone: str  # of fastseg.backbones.BACKBONES
    decoder_channels: int
    head_channels: int


VARIANTS: dict[str, Variant | BackboneVariant] = {
    "nano": Variant(
        stem=(16, 32),
        stages_8=(Stage(32, 2, expansion=3, stride=2),),
        stages_16=(
            Stage(64, 3, expansion=3, stride=2),
            Stage(64, 2, expansion=3, kernel_size=5),
        ),
        stages_32=(Stage(112, 3, expansion=4, stride=2),),
        decoder_channels=48,
        head_channels=32,
    ),
    "small": Variant(
        stem=(16, 32),
        stages_8=(Stage(48, 2, expansion=2, stride=2, fused=True),),
        stages_16=(
            Stage(80, 4, expansion=4, stride=2),
            Stage(96, 2, expansion=4, kernel_size=5),
        ),
        stages_32=(Stage(144, 4, expansion=4, stride=2),),
        decoder_channels=64,
        head_channels=48,
    ),
    "base": Variant(
        stem=(32, 48),
        stages_8=(Stage(64, 3, expansion=2, stride=2, fused=True),),
        stages_16=(
            Stage(96, 4, expansion=4, stride=2),
            Stage(128, 3, expansion=4, kernel_size=5),
        ),
        stages_32=(Stage(192, 4, expansion=4, stride=2),),
        decoder_channels=80,
        head_channels=64,
    ),
    "large": Variant(
        stem=(32, 64),
        stages_8=(Stage(96, 3, expansion=2, stride=2, fused=True),),
        stages_16=(
            Stage(128, 5, expansion=4, stride=2),
            Stage(192, 4, expansion=4, kernel_size=5),
        ),
        stages_32=(Stage(256, 4, expansion=4, stride=2),),
        decoder_channels=96,
        head_channels=64,
    ),
    "lite": BackboneVariant("efficientnet-lite0", decoder_channels=96, head_channels=64),
    "lite1": BackboneVariant("efficientnet-lite1", decoder_channels=96, head_channels=64),
    "lite2": BackboneVariant("efficientnet-lite2", decoder_channels=96, head_channels=64),
    "mobilenetv2": BackboneVariant("mobilenetv2", decoder_channels=80, head_channels=64),
}
