"""FastSegNet's decoder behind another encoder.

Shape letters as in fastseg/model.py.
"""

from torch import Tensor, nn

from fastseg.backbones.mobilenetv2 import MobileNetV2
from fastseg.model import FastSegNet, check_classes

BACKBONES = {"mobilenetv2": MobileNetV2}
DECODER_CHANNELS, HEAD_CHANNELS = 80, 64  # those of base


class BackboneNet(FastSegNet):
    """A backbone of BACKBONES with the ARM, FFM and heads of FastSegNet.

    Args:
        num_classes: number of classes, 1 to 255.
        backbone: a name of BACKBONES.
        auxiliary: add the two heads that only training uses.
    """

    def __init__(self, num_classes: int, backbone: str, auxiliary: bool = True) -> None:
        nn.Module.__init__(self)  # not FastSegNet's, which would build its own encoder
        check_classes(num_classes)
        if backbone not in BACKBONES:
            raise ValueError(f"no backbone {backbone!r}; choose one of {sorted(BACKBONES)}")
        self.num_classes, self.variant = num_classes, backbone
        self.backbone = BACKBONES[backbone]()
        self.make_decoder(self.backbone.channels, DECODER_CHANNELS, HEAD_CHANNELS, auxiliary)

    def encode(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the backbone's maps at 1/8, 1/16 and 1/32."""
        maps: tuple[Tensor, Tensor, Tensor] = self.backbone(image_N3HW)
        return maps
