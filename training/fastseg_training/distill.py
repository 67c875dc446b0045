"""Knowledge distillation: a small network learns from a large one's logits too.

Shape letters: N batch, K classes, h and w the size of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DistillationOptions:
    """How closely to imitate a teacher; see DistillationLoss."""

    temperature: float = 3.0
    channel_weight: float = 6.0
    logit_weight: float = 1.0


class DistillationLoss(nn.Module):
    """Channel-wise distillation plus distillation of each pixel's probabilities.

    Channel-wise (Shu et al. 2021, arXiv:2011.13256): for each class, where in the image does it
    lie? A softmax over positions, compared by Kullback-Leibler divergence. Pixel-wise (Hinton
    et al. 2015, arXiv:1503.02531): for each position, which class is it?

    Args:
        temperature: divides logits; the higher, the more of the unlikely is learnt.
        channel_weight: factor of the channel-wise term.
        logit_weight: factor of the pixel-wise term.
    """

    def __init__(
        self, temperature: float = 3.0, channel_weight: float = 6.0, logit_weight: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected more than 0")
        self.temperature = temperature
        self.channel_weight, self.logit_weight = channel_weight, logit_weight

    def forward(self, student_NKhw: Tensor, teacher_NKhw: Tensor) -> Tensor:
        """Return a scalar; the teacher's logits are resized to the student's if they differ."""
        student_NKhw, teacher_NKhw = student_NKhw.float(), teacher_NKhw.float().detach()
        if teacher_NKhw.shape[-2:] != student_NKhw.shape[-2:]:
            size = student_NKhw.shape[-2:]
            teacher_NKhw = F.interpolate(teacher_NKhw, size=size, mode="bilinear")
        positions = (student_NKhw.flatten(2), teacher_NKhw.flatten(2))
        classes = (student_NKhw.movedim(1, -1), teacher_NKhw.movedim(1, -1))
        channel_loss = divergence(*positions, self.temperature)
        logit_loss = divergence(*classes, self.temperature)
        return self.channel_weight * channel_loss + self.logit_weight * logit_loss


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) over the last axis, mean over the others."""
    student_log, teacher_log = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    pointwise = F.kl_div(student_log, teacher_log, reduction="none", log_target=True)
    return pointwise.sum(-1).mean() * temperature**2
