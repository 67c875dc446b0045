"""Factories of networks that others wrote, for `fastseg-export foreign_networks:NAME`.

Their code is not here. FASTSEG_FOREIGN names a folder with a checkout of each repository under its
own name (DDRNet, PIDNet, BiSeNet, PyTorch-ENet, realtime-semantic-segmentation-pytorch); of
torchvision, segmentation-models-pytorch and transformers the installed packages are taken.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

FOLDER = "FASTSEG_FOREIGN"


def load(repository: str, file: str) -> Any:
    """Return a file of a checkout as a module, its folder being a package of that name.

    Raises:
        ValueError: the file is not there.
    """
    path = Path(os.environ.get(FOLDER, "")) / repository / file
    if not path.is_file():
        raise ValueError(f"{path} is not there; {FOLDER} names the folder with the checkouts")
    package = ModuleType(f"foreign_{repository.lower().replace('-', '_')}")
    package.__path__ = [str(path.parent)]  # what the folder's own __init__.py loads is not needed
    sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(f"{package.__name__}.{path.stem}")


def ddrnet_23_slim(num_classes: int) -> nn.Module:
    """https://github.com/ydhongHIT/DDRNet."""
    code = load("DDRNet", "segmentation/DDRNet_23_slim.py")
    sizes = {"planes": 32, "spp_planes": 128, "head_planes": 64}
    net: nn.Module = code.DualResNet(code.BasicBlock, [2, 2, 2, 2], num_classes, **sizes)
    return net


def pidnet_s(num_classes: int) -> nn.Module:
    """https://github.com/XuJiacong/PIDNet."""
    net: nn.Module = load("PIDNet", "models/pidnet.py").get_pred_model("pidnet_s", num_classes)
    return net


def bisenet_v2(num_classes: int) -> nn.Module:
    """https://github.com/CoinCheung/BiSeNet; "eval" gives the logits alone, in a tuple."""
    code = load("BiSeNet", "lib/models/bisenetv2.py")
    code.BiSeNetV2.load_pretrain = lambda self: None  # which would be fetched
    net: nn.Module = code.BiSeNetV2(num_classes, "eval")
    return net


def fddwnet(num_classes: int) -> nn.Module:
    """https://github.com/zh320/realtime-semantic-segmentation-pytorch."""
    code = load("realtime-semantic-segmentation-pytorch", "models/fddwnet.py")
    net: nn.Module = code.FDDWNet(num_classes)
    return net


def enet(num_classes: int) -> nn.Module:
    """https://github.com/davidtvs/PyTorch-ENet."""
    net: nn.Module = load("PyTorch-ENet", "models/enet.py").ENet(num_classes)
    return net


def segformer_b0(num_classes: int) -> nn.Module:
    """Of transformers, whose default configuration is B0."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=num_classes))


def lraspp(num_classes: int) -> nn.Module:
    """Of torchvision: LR-ASPP on MobileNetV3 Large."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    net: nn.Module = lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=num_classes)
    return net


def unet(num_classes: int) -> nn.Module:
    """Of segmentation-models-pytorch: a U-Net on MobileNetV2."""
    from segmentation_models_pytorch import Unet

    net: nn.Module = Unet("mobilenet_v2", encoder_weights=None, classes=num_classes)
    return net
