"""The recipe of a training: everything about optimisation that is not the data or the loss."""

from __future__ import annotations

from dataclasses import dataclass

from fastseg_training.schedule import DECAYS


@dataclass(frozen=True)
class Recipe:
    """How to optimise. The defaults are those of the CamVid headline.

    Attributes:
        decay: of the learning rate: "cosine", "poly" or "constant".
        warmup_steps: steps until the learning rate is at its peak.
        weight_decay: AdamW's, on weights with two dimensions or more.
        backbone_factor: factor of the learning rate for the encoder; below 1 if it is pretrained.
        clip_norm: gradients longer than this are shortened to it.
        ema_decay: of the weights that are evaluated and saved.
        auxiliary_weight: factor of the losses of the auxiliary heads.
        loss_stride: 1, 2, 4 or 8: the main head is compared with labels at 1/loss_stride.
        precision: "auto", "fp32", "bf16" or "fp16".
        evaluations: how often the validation split is looked at, evenly spread.
    """

    decay: str = "cosine"
    warmup_steps: int = 200
    weight_decay: float = 0.02
    backbone_factor: float = 1.0
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    auxiliary_weight: float = 0.4
    loss_stride: int = 2
    precision: str = "auto"
    evaluations: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.decay not in DECAYS:
            raise ValueError(f"decay is {self.decay!r}; choose one of {sorted(DECAYS)}")
        if self.loss_stride not in (1, 2, 4, 8):
            raise ValueError(f"loss_stride is {self.loss_stride}; choose 1, 2, 4 or 8")
