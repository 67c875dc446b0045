"""An untrained FastSegNet whose class map looks like that of a trained one.

Our class map computes only where classes meet, so its time depends on the picture. Untrained, the
network sees one class everywhere and would look faster than in use. Here as many cells between
logits lie on borders as in CamVid's test pictures, by a trained FastSegNet-small at 1024x512.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import Array
from torch import Tensor, nn

from fastseg import FastSegNet

BORDER_SHARE = 0.21
BISECTIONS = 20
STRONGEST_BIAS = 32.0  # standard deviations: one class wins everywhere


def untrained(classes: int, variant: str, image_1HW3: Array) -> FastSegNet:
    """Return a network with random weights, in eval mode.

    Args:
        classes: K.
        variant: of FastSegNet.
        image_1HW3: uint8, the picture to segment.
    """
    torch.manual_seed(0)
    network = FastSegNet(classes, variant).eval()
    classifier = network.head[1]
    assert isinstance(classifier, nn.Conv2d) and classifier.bias is not None
    with torch.no_grad():
        image_N3HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
        logits_1Khw = network.logits(_whole_strides(image_N3HW))
        mean_K, std_K = logits_1Khw.mean(dim=(0, 2, 3)), logits_1Khw.std(dim=(0, 2, 3))
        spread_1Khw = (logits_1Khw - mean_K[:, None, None]) / std_K[:, None, None]
        favour_K = _favour(spread_1Khw, torch.randn(classes))
        classifier.weight /= std_K[:, None, None, None]
        classifier.bias.copy_((classifier.bias - mean_K) / std_K + favour_K)
    return network


def border_share(logits_1Khw: Tensor) -> float:
    """Return the share of cells between four logits in which more than one class wins."""
    ids_hw = F.pad(logits_1Khw, (1, 1, 1, 1), mode="replicate").argmax(dim=1)[0]
    corners = ids_hw[:-1, :-1], ids_hw[:-1, 1:], ids_hw[1:, :-1], ids_hw[1:, 1:]
    stacked_4hw = torch.stack(corners)
    return float((stacked_4hw.amax(dim=0) != stacked_4hw.amin(dim=0)).float().mean())


def _favour(logits_1Khw: Tensor, direction_K: Tensor) -> Tensor:
    """Return biases that make some classes win more often, until borders are rare enough."""
    low, high = 0.0, STRONGEST_BIAS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        share = border_share(logits_1Khw + middle * direction_K[:, None, None])
        low, high = (low, middle) if share < BORDER_SHARE else (middle, high)
    return low * direction_K  # the share is at least as large as wanted


def _whole_strides(image_N3HW: Tensor) -> Tensor:
    height, width = (max(32, side // 32 * 32) for side in image_N3HW.shape[-2:])
    return F.interpolate(image_N3HW, size=(height, width))
