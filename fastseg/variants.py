"""The variants of FastSegNet as data: a new one is a new row in VARIANTS, or a new backbone.

Widths are multiples of 16, the granule of int8 GPU kernels. Why dense (fused) blocks
stand at 1/8 and depthwise ones only deeper is told in docs/network.md.
"""

import pkgutil
from dataclasses import dataclass
from importlib import import_module

from fastseg import backbones
from fastseg.backbones import BackboneVariant
from fastseg.blocks import Stage


@dataclass(frozen=True)
class Variant:
    """All widths and depths of one network."""

    stem: tuple[int, int]  # channels at 1/2 and 1/4
    stages_8: tuple[Stage, ...]
    stages_16: tuple[Stage, ...]
    stages_32: tuple[Stage, ...]
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
}
for _file in pkgutil.iter_modules(backbones.__path__):  # a backbone is its file and nothing else
    VARIANTS |= import_module(f"{backbones.__name__}.{_file.name}").VARIANTS
