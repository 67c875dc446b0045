"""Choosing weights by their score on the validation split, and ending where it gets no better.

What is chosen so scores better on that split than it will elsewhere: the more evaluations it is
the best of, the more of its lead is luck. Names and headers say that it was chosen.
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Selection:
    """What may be chosen on the validation split.

    Attributes:
        keep_best: keep the averaged weights of the evaluation with the highest mIoU.
        patience: end after so many evaluations in a row that were no better; 0 for never.
    """

    keep_best: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}; expected 0 or more evaluations")

    @property
    def needs_validation(self) -> bool:
        """Whether there has to be a split to choose on."""
        return self.keep_best or self.patience > 0


@dataclass
class Best:
    """The best evaluation so far, and how many came after it."""

    miou: float = -math.inf
    step: int = 0
    evaluations: int = 0
    since: int = 0

    def note(self, miou: float, step: int) -> bool:
        """Take note of an evaluation; return whether it is the best so far."""
        self.evaluations += 1
        if math.isnan(miou):  # nothing was told apart there: neither better nor worse
            return False
        if not miou > self.miou:
            self.since += 1
            return False
        self.miou, self.step, self.since = miou, step, 0
        return True

    def described(self) -> dict[str, Any]:
        """Return what the header of the chosen weights says of the choice."""
        return {
            "chosen_by": "highest validation mIoU",
            "chosen_of_evaluations": self.evaluations,
            "validation_miou": self.miou,
        }
