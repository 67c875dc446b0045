"""The exponential moving average of a network's weights: what is evaluated and shipped."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn


class ModelEMA:
    """Keeps a second network whose weights and running statistics follow the first ones slowly.

    The decay ramps up as (1 + step) / (10 + step), so the random start is soon forgotten
    (tf.train.ExponentialMovingAverage does the same).

    Args:
        model: the network in training; it is copied.
        decay: share of the old average that a step keeps, after the ramp.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._sources = ([pair[side] for pair in floating] for side in (0, 1))
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for average, source in self._counters:
            average.copy_(source)


def _tensors(model: nn.Module) -> list[Tensor]:
    return cast(list[Tensor], list(model.state_dict().values()))
