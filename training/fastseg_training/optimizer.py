"""The optimizer and its groups of parameters."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

# Top-level parts whose weights may come pretrained: FastSegNet's encoder, and what others call it.
BACKBONE_PARTS = ("stem", "stage_8", "stage_16", "stage_32", "backbone", "encoder")


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, backbone_factor: float
) -> AdamW:
    """Return AdamW with up to four groups, each with its "factor" of the learning rate.

    Norms and biases do not decay: decay shrinks a direction, and these have none.

    Args:
        model: the network.
        learning_rate: the peak.
        weight_decay: of weights with two dimensions or more.
        backbone_factor: factor of the learning rate for BACKBONE_PARTS.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = backbone_factor if name.split(".")[0] in BACKBONE_PARTS else 1.0
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "factor": factor, "weight_decay": decay, "lr": learning_rate}
            for (factor, decay), parameters in groups.items()
        ],
        fused=True,
    )
