"""Start from the weights of another network, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fastseg_training.config import ConfigError

CLASSIFIER = "head.1."  # the layer that knows the classes


def copy_matching(
    source: Mapping[str, Tensor], target: nn.Module, same_classes: bool, name: str
) -> str:
    """Copy all tensors of equal name and shape.

    Args:
        source: the state dict to take weights from.
        target: the network to train.
        same_classes: copy the classifier too; with other classes it starts anew.
        name: of the source, for messages.

    Returns:
        What was taken and what starts anew, in one line.

    Raises:
        ConfigError: nothing fits.
    """
    wanted = target.state_dict()
    found = {
        key: value
        for key, value in source.items()
        if key in wanted
        and value.shape == wanted[key].shape
        and (same_classes or not key.startswith(CLASSIFIER))
    }
    if not found:
        raise ConfigError(f"no weight of {name} fits this network; is it of another kind?")
    target.load_state_dict(found, strict=False)
    new = [key for key in wanted if key not in found and not key.startswith("auxiliary_heads.")]
    return f"{name}: {len(found)} tensors taken, {len(new)} start anew {' '.join(new[:4])}"
