from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime.engines.frame_runner import LogitsToClasses
from torch import nn

from fastseg import DeployGraph, FastSegNet

Array = np.ndarray[Any, Any]


class Pooled(nn.Module):
    """Logits at a fraction of the image's size, as networks give them."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(size)

    def forward(self, image_N3HW: torch.Tensor) -> torch.Tensor:
        return self.pool(image_N3HW)


@pytest.mark.parametrize(
    ("image", "logits", "stride"),
    [
        ((32, 64), (4, 8), 1),
        ((32, 64), (4, 8), 2),
        ((36, 60), (5, 8), 1),  # no whole factor
        ((36, 60), (5, 8), 2),
        ((32, 64), (32, 64), 1),
    ],
)
def test_ids_are_those_of_the_deploy_graph(
    image: tuple[int, int], logits: tuple[int, int], stride: int
) -> None:
    check(Pooled(logits), image, stride, padded=False)


def test_logits_of_our_own_networks_cover_their_padding() -> None:
    torch.manual_seed(0)
    check(FastSegNet(4, "nano"), (36, 60), 1, padded=True)


def check(network: nn.Module, image: tuple[int, int], stride: int, padded: bool) -> None:
    height, width = image
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    whole = DeployGraph(network, width, height, mask_stride=stride)
    scores = DeployGraph(network, width, height, output="logits")
    with torch.inference_mode():
        expected = whole(torch.from_numpy(frame))[0].numpy()
        logits_Khw = scores(torch.from_numpy(frame))[0].numpy()
    decode = LogitsToClasses(logits_Khw.shape[1:], (height // stride, width // stride), padded)
    assert (decode(logits_Khw) == expected).mean() > 0.999


def test_the_lowest_id_wins_a_tie() -> None:
    assert not LogitsToClasses((2, 2), (4, 4))(np.ones((3, 2, 2), np.float32)).any()
