"""Knowledge distillation: a small network learns from a large one's logits too.

Shape letters: N batch, K classes, h and w the size of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor, nn

LEAST_WEIGHT = 0.5  # below it a position is left out of the channel-wise term
NOWHERE = -1e4  # a logit whose softmax is 0, at any temperature in use
FLOOR = 1e-5  # probability: a soft label knows nothing below it


@dataclass(frozen=True)
class DistillationOptions:
    """How closely to imitate a teacher; see DistillationLoss."""

    temperature: float = 3.0
    channel_weight: float = 6.0
    logit_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected more than 0")
        for name in ("channel_weight", "logit_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")


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
        self,
        temperature: float = DistillationOptions.temperature,
        channel_weight: float = DistillationOptions.channel_weight,
        logit_weight: float = DistillationOptions.logit_weight,
    ) -> None:
        super().__init__()
        self.options = DistillationOptions(temperature, channel_weight, logit_weight)

    def forward(
        self, student_NKhw: Tensor, teacher_NKhw: Tensor, weight_Nhw: Tensor | None = None
    ) -> Tensor:
        """Return a scalar.

        Args:
            student_NKhw: logits.
            teacher_NKhw: logits; whichever of the two is coarser is resized to the other.
            weight_Nhw: what the teacher's word counts, 0 to 1, at the finer one's positions; 1 by
                default.
        """
        temperature = self.options.temperature
        student_NKhw, teacher_NKhw = student_NKhw.float(), teacher_NKhw.float().detach()
        finer = max(student_NKhw.shape[-2:], teacher_NKhw.shape[-2:])
        student_NKhw, teacher_NKhw = (resized(x, finer) for x in (student_NKhw, teacher_NKhw))
        pointwise_Nhw = divergence(
            student_NKhw.movedim(1, -1), teacher_NKhw.movedim(1, -1), temperature
        )
        if weight_Nhw is None:
            logit_loss = pointwise_Nhw.mean()
        else:
            logit_loss = (pointwise_Nhw * weight_Nhw).sum() / weight_Nhw.sum().clamp_min(1)
            # Positions that do not count get no share of a class, in either network.
            nowhere_N1hw = (weight_Nhw < LEAST_WEIGHT)[:, None]
            student_NKhw, teacher_NKhw = (
                x.masked_fill(nowhere_N1hw, NOWHERE) for x in (student_NKhw, teacher_NKhw)
            )
        channel_loss = divergence(
            student_NKhw.flatten(2), teacher_NKhw.flatten(2), temperature
        ).mean()
        return self.options.channel_weight * channel_loss + self.options.logit_weight * logit_loss


def resized(logits_NKhw: Tensor, size: torch.Size) -> Tensor:
    """Return logits at a size (height, width), bilinear."""
    if logits_NKhw.shape[-2:] == size:
        return logits_NKhw
    return F.interpolate(logits_NKhw, size=size, mode="bilinear", align_corners=False)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) over the last axis."""
    student_log, teacher_log = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    pointwise = F.kl_div(student_log, teacher_log, reduction="none", log_target=True)
    return pointwise.sum(-1) * temperature**2


def soft_label_loss(
    loss: DistillationLoss,
    student_NKhw: Tensor,
    soft_NKhw: Tensor,
    label_NHW: Tensor,
    taught: Sequence[int],
) -> Tensor:
    """Return the loss of a batch against a teacher's probabilities.

    Where these add up to less than 1 they count less. A class that the teacher does not know is
    left out of the comparison, and so are the pixels labelled as such: there it is wrong.

    Args:
        loss: how to imitate.
        student_NKhw: logits of the main head.
        soft_NKhw: probabilities, at a whole fraction of the labels' size; logits of another size
            are resized to theirs.
        label_NHW: class ids.
        taught: indices of the classes that the teacher knows; all of them if empty.
    """
    weight_Nhw = soft_NKhw.sum(1)
    if taught:
        stride = label_NHW.shape[-1] // soft_NKhw.shape[-1]
        label_Nhw = label_NHW[:, stride // 2 :: stride, stride // 2 :: stride]
        trusted_256 = torch.zeros(256, dtype=torch.bool, device=soft_NKhw.device)
        trusted_256[[*taught, IGNORE_INDEX]] = True
        weight_Nhw = weight_Nhw * trusted_256[label_Nhw]
        student_NKhw, soft_NKhw = student_NKhw[:, taught], soft_NKhw[:, taught]
    # log p on both sides: the channel-wise term compares where a class is likely, not where
    # logits are large.
    teacher_NKhw = soft_NKhw.clamp_min(FLOOR).log()
    student_NKhw = resized(student_NKhw.float(), soft_NKhw.shape[-2:]).log_softmax(1)
    value: Tensor = loss(student_NKhw, teacher_NKhw, weight_Nhw)
    return value
