"""Encoders of others in front of FastSegNet's decoder: `--model mobilenetv2`.

Another backbone is one file with a class like MobileNetV2 (`channels`, `forward`, `rename`) and one
line in BACKBONES.
"""

from fastseg.backbones.load import load_backbone
from fastseg.backbones.network import BACKBONES, BackboneNet

__all__ = ["BACKBONES", "BackboneNet", "load_backbone"]
