"""Fold batch norms into the convolutions before them, where that changes nothing.

Folding rewrites layers, while what may be folded is a matter of calls: a layer may be called
twice, its weight may serve another layer, its output may be read elsewhere. So a network is run
once and watched: a pair is folded only if each tensor of it is used by that pair alone.
"""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
# What torch functions return that tell of a tensor's form, not of its values.
_OF_FORM = (int, torch.Size, torch.dtype, torch.device)
_TENSORS = ("weight", "bias", "running_mean", "running_var")


def bake_parametrizations(network: nn.Module) -> None:
    """Make plain weights of those that torch.nn.utils.parametrize computes at each call.

    Not by its remove_parametrizations(), which changes the class that a copy shares.
    """
    for layer in filter(parametrize.is_parametrized, network.modules()):
        weights = {name: getattr(layer, name).detach() for name in layer.parametrizations}  # type: ignore[union-attr]
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        for name, weight in weights.items():
            layer.register_parameter(name, nn.Parameter(weight))


def fold_batch_norms(
    network: nn.Module, image_N3HW: Tensor, keep_norms: Collection[str] = ()
) -> nn.Module:
    """Fold in place what is not to be kept, and return the network, which is in eval mode.

    It is run on the image once.
    """
    names = {layer: name for name, layer in network.named_modules()}
    for conv, norm in foldable_pairs(network, image_N3HW):
        if names[norm] not in keep_norms:
            _fold(conv, norm)
    return network


def foldable_pairs(network: nn.Module, image_N3HW: Tensor) -> list[Pair]:
    """Return the convolutions with the batch norms after them that may become one layer."""
    uses = _Uses()
    found: list[tuple[Pair, list[Any]]] = []  # pairs, and who takes the map between
    made_by = WeakTensorKeyDictionary()

    def called(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(layer, nn.Conv2d):
            made_by[output] = layer
        elif isinstance(layer, nn.BatchNorm2d) and inputs and inputs[0] in made_by:
            found.append(((made_by[inputs[0]], layer), uses.users(inputs[0])))

    hooks = [layer.register_forward_hook(called) for layer in network.modules() if _is_plain(layer)]
    try:
        with torch.no_grad(), uses:
            uses.add(network(image_N3HW), user="the caller")
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair, users in found if len(users) == 1 and uses.is_private(pair)]


class _Uses(TorchFunctionMode):
    """Notes which torch functions take each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self._users = WeakTensorKeyDictionary()  # activations go as soon as the network is done

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, _OF_FORM):
            self.add((args, kwargs), func)
        return result

    def add(self, values: Any, user: Any) -> None:
        for tensor in tensors_in(values):
            self.users(tensor).append(user)

    def users(self, tensor: Tensor) -> list[Any]:
        users: list[Any] = self._users.setdefault(tensor, [])  # type: ignore[no-untyped-call]
        return users

    def is_private(self, pair: Pair) -> bool:
        """Return whether each parameter and statistic serves one call."""
        tensors = (getattr(layer, name, None) for layer in pair for name in _TENSORS)
        return all(len(self.users(tensor)) == 1 for tensor in tensors if tensor is not None)


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is nothing but torch's own.

    A subclass, a parametrization, a hook or a forward() put in its place may do anything with
    the weights.
    """
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    if type(layer) is nn.BatchNorm2d:
        return not layer.training and layer.running_mean is not None
    return type(layer) is nn.Conv2d


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in arguments or results: alone, in lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Change the very objects: they may be known by several names, or from a plain list."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    norm._parameters.clear()
    norm._buffers.clear()
    norm.__class__ = nn.Identity  # type: ignore[assignment]
