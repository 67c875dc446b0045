"""Encoders of others for FastSegNet: `lite`, `mobilenetv2`.

Another one is a file with a class like MobileNetV2 (`channels`, `forward`, `rename`), a line in
BACKBONES and a row in fastseg/variants.py.
"""

import functools
from collections.abc import Callable

from fastseg.backbones.efficientnet_lite import EfficientNetLite
from fastseg.backbones.mobilenetv2 import MobileNetV2

Backbone = EfficientNetLite | MobileNetV2
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet-lite0": EfficientNetLite,
    "efficientnet-lite1": functools.partial(EfficientNetLite, 1.0, 1.1, 240),
    "efficientnet-lite2": functools.partial(EfficientNetLite, 1.1, 1.2, 260),
    "mobilenetv2": MobileNetV2,
}

__all__ = ["BACKBONES", "Backbone"]
