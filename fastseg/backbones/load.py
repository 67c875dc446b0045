"""Weights that others trained on ImageNet, from a file the user has, into a backbone."""

from pathlib import Path

import torch
from torch import Tensor

from fastseg.backbones.network import BackboneNet
from fastseg.checkpoint import CheckpointError, CheckpointInfo, read_state_dict

# What torchvision and timm subtract from and divide pixels by that are scaled to 0..1, in RGB.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SHOWN = 4  # names in a report


def load_backbone(network: BackboneNet, path: Path) -> str:
    """Copy all tensors that fit into the backbone.

    Args:
        network: its backbone is changed in place.
        path: a state dict of a classifier (.pth, .pt, .safetensors), as torchvision or timm name
            its layers.

    Returns:
        What was taken, what starts anew and what was not used, in one line.

    Raises:
        CheckpointError: nothing fits, or the file is no state dict.
    """
    given = network.backbone.rename(read_state_dict(path))
    wanted = network.backbone.state_dict()
    found = {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}
    if not found:
        raise CheckpointError(
            f"{path}: no tensor fits {network.variant}; expected names such as "
            f"{_some(list(wanted))}, as torchvision has them, or timm's; got {_some(list(given))}"
        )
    network.backbone.load_state_dict(take_own_pixels(found, network.backbone.first_layer), False)
    new = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unused = [k for k in given if k not in found]
    return (
        f"{path.name}: {len(found)} of {len(wanted)} tensors of {network.variant} taken; "
        f"{len(new)} start anew{_some(new, ': ')}; {len(unused)} not used{_some(unused, ': ')}"
    )


def take_own_pixels(weights: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """Return weights that take pixels normalised as ours, (x - 128) / 64, and give the same.

    With u for a normalised pixel of ours, theirs is a_c u + b_c for each channel c. The factor goes
    into the first convolution, and what b_c adds to each of its outputs is taken from the running
    mean of the batch norm behind. At the picture's border the two differ: zeros around the picture
    are mid-grey for us, ImageNet's mean colour for them.
    """
    conv, mean = f"{layer}.0.weight", f"{layer}.1.running_mean"
    if conv not in weights or mean not in weights:
        return weights
    mean_3, std_3 = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    factor_3 = CheckpointInfo.std / (255 * std_3)
    offset_3 = (CheckpointInfo.mean / 255 - mean_3) / std_3
    kernel = weights[conv].float()  # (C, 3, k, k)
    added_C = (kernel.sum((2, 3)) * offset_3).sum(1)
    changed = {conv: kernel * factor_3[:, None, None], mean: weights[mean].float() - added_C}
    return weights | changed


def _some(names: list[str], before: str = "") -> str:
    more = " ..." if len(names) > SHOWN else ""
    return before + ", ".join(names[:SHOWN]) + more if names else ""
