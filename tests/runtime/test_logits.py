from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime.logits import LogitsToClasses
from torch import nn

from fastseg import DeployGraph

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
        ((36, 60), (5, 8), 1),  # a whole factor of 8, the rest cut off
        ((30, 60), (8, 8), 1),  # no common factor
        ((32, 64), (32, 64), 1),
    ],
)
def test_ids_are_those_of_the_deploy_graph(
    image: tuple[int, int], logits: tuple[int, int], stride: int
) -> None:
    height, width = image
    network = Pooled(logits)
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    whole = DeployGraph(network, width, height, mask_stride=stride)
    scores = DeployGraph(network, width, height, output="logits")
    with torch.inference_mode():
        expected = whole(torch.from_numpy(frame))[0].numpy()
        logits_Khw = scores(torch.from_numpy(frame))[0].numpy()
    decode = LogitsToClasses(logits_Khw.shape[1:], (height // stride, width // stride))
    assert (decode(logits_Khw) == expected).mean() > 0.999


def test_the_lowest_id_wins_a_tie() -> None:
    assert not LogitsToClasses((2, 2), (4, 4))(np.ones((3, 2, 2), np.float32)).any()
