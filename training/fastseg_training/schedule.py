"""How far a training is, and the learning rate that belongs there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

WARMUP_SHARE = 0.1
POLY_POWER = 0.9  # DeepLab, Chen et al. 2017, arXiv:1606.00915

# Name -> factor of the learning rate at a progress between 0 and 1.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "poly": lambda progress: (1 - progress) ** POLY_POWER,
    "constant": lambda progress: 1.0,
}


@dataclass(frozen=True)
class Budget:
    """When a training ends: after a number of steps or, if seconds are given, of seconds."""

    steps: int
    seconds: float | None = None

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how much of the budget is used, 0 to 1."""
        if self.seconds is None:
            return min(step / max(self.steps, 1), 1.0)
        return min(elapsed_s / self.seconds, 1.0)


def learning_rate_factor(decay: str, progress: float, step: int, warmup_steps: int) -> float:
    """Return the factor of the peak learning rate: a linear warm-up, times one of DECAYS.

    The warm-up lasts warmup_steps, but never beyond WARMUP_SHARE of a short training.
    """
    warmup = max((step + 1) / warmup_steps, progress / WARMUP_SHARE) if warmup_steps else 1.0
    return min(warmup, 1.0) * DECAYS[decay](progress)
