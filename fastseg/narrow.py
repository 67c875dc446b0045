"""Give a network the widths of stored weights: how pruned networks come back from a file.

Structured pruning removes whole channels, so the layers stay what they were and only their
channel counts differ from the variant's. The weights' shapes tell them all.
"""

from collections.abc import Mapping

from torch import Tensor, nn


def narrow_to_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Replace convolutions and batch norms whose weights are of another width, in place.

    Args:
        model: a network of the same layers.
        weights: its state dict to be; layers that are not in it are left alone.
    """
    for name, layer in list(model.named_modules()):
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.shape == getattr(layer, "weight", weight).shape:
            continue
        if isinstance(layer, nn.Conv2d):
            model.set_submodule(name, _conv(layer, weight))
        elif isinstance(layer, nn.BatchNorm2d):
            model.set_submodule(name, nn.BatchNorm2d(len(weight), layer.eps, layer.momentum))


def _conv(layer: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    out_channels, in_channels_of_group = weight.shape[:2]
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    groups = out_channels if depthwise else layer.groups
    return nn.Conv2d(
        in_channels_of_group * groups,
        out_channels,
        layer.kernel_size,  # type: ignore[arg-type]  # a pair, as nn.Conv2d itself made it
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        groups=groups,
        bias=layer.bias is not None,
    )
