"""Small networks of others in which folding a batch norm by module, not by call, goes wrong."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5
CHANNELS = 8


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, **options)


def norm(variance: float = 0.05, mean: float = 0.3, **options: Any) -> nn.BatchNorm2d:
    """A batch norm whose statistics matter."""
    layer = nn.BatchNorm2d(CHANNELS, **options)
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean.fill_(mean)
        layer.running_var.fill_(variance)
    if layer.affine:
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.uniform_(layer.bias, -1, 1)
    return layer


class StandardisedConv(nn.Conv2d):
    """Takes out what folding puts into the weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.pow(2).mean((1, 2, 3), keepdim=True).sqrt()
        return F.conv2d(x, weight, self.bias, padding=1)


class Habit(nn.Module):
    """A stem and a head of 1/4, and between them one habit that real networks have."""

    def __init__(self, forward: Callable[["Habit", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1)
        self.habit = forward
        self.head = nn.Conv2d(CHANNELS, CLASSES, 1)
        self.hidden = [conv()]  # not registered, as people forget
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, image: Tensor) -> Any:
        return self.head(self.habit(self, self.stem(image)))


def transposed_conv() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2, groups=2)


def scaled(n: Habit, x: Tensor) -> Tensor:
    return n.conv(x) * torch.linspace(-2, 2, CHANNELS)[:, None, None]


def pooled(n: Habit, x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) - F.avg_pool2d(x, (2, 2))


def called_twice(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.conv(x))) - torch.relu(n.norm_2(n.conv(1 - x)))


def norm_behind_two(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.conv(x))) - torch.relu(n.norm(n.conv_2(x)))


def in_a_row(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.conv(x)))


def read_elsewhere(n: Habit, x: Tensor) -> Tensor:
    y = n.conv(x)
    return torch.relu(n.norm(y)) - y


def written_elsewhere(n: Habit, x: Tensor) -> Tensor:
    y, both = n.conv(x), torch.zeros_like(x)
    both[:] = y
    return torch.relu(n.norm(y)) - both


def tied(n: Habit, x: Tensor) -> Tensor:
    n.conv_2.weight = n.conv.weight
    return torch.relu(n.norm(n.conv(x))) - torch.relu(n.norm_2(n.conv_2(x)))


def functional(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.conv(x))) - F.conv2d(x, n.conv.weight, padding=1)


def norm_read(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.conv(x))) * n.norm.weight[:, None, None]


def by_keyword(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(input=n.conv(x)))


def changed_in_place(n: Habit, x: Tensor) -> Tensor:
    y = n.conv(x)
    y += x
    return torch.relu(n.norm(y))


def only_where_wide(n: Habit, x: Tensor) -> Tensor:
    y = n.conv(x)
    return torch.relu(n.norm(y) if x.shape[-1] > 8 else y)


def only_tensors(n: Habit, x: Any) -> Tensor:
    """Take a branch that stand-ins for tensors would not."""
    y = n.norm(n.conv(x))
    return torch.relu(y) - (n.conv(y) if isinstance(x, Tensor) else y)


def by_another_name(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.same[1](n.same[0](x)))


def from_a_plain_list(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.listed[1](n.listed[0](x)))


def forgotten(n: Habit, x: Tensor) -> Tensor:
    return torch.relu(n.norm(n.hidden[0](x)))


def _scale(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 0.5 * output + 1


def _aliased() -> Habit:
    network = Habit(by_another_name, conv=conv(), norm=norm())
    network.same = nn.Sequential(network.conv, network.norm)
    return network


def _listed() -> Habit:
    network = Habit(from_a_plain_list, layers=nn.ModuleList([conv(), norm()]))
    network.listed = list(network.layers)
    return network


def _hooked(name: str) -> Habit:
    network = Habit(in_a_row, conv=conv(), norm=norm())
    network.get_submodule(name).register_forward_hook(_scale)
    return network


class ManyMaps(Habit):
    """Its logits are what a batch norm reads for its second output."""

    def forward(self, image: Tensor) -> Any:
        y = self.conv(self.stem(image))
        return y, self.norm(y).amax(dim=1)


HABITS: dict[str, Callable[[], nn.Module]] = {
    "a convolution called twice": lambda: Habit(
        called_twice, conv=conv(), norm=norm(), norm_2=norm(0.002, -0.3)
    ),
    "a norm behind two convolutions": lambda: Habit(
        norm_behind_two, conv=conv(), conv_2=conv(), norm=norm()
    ),
    "a norm without statistics": lambda: Habit(
        in_a_row, conv=conv(), norm=norm(track_running_stats=False)
    ),
    "a norm without affine part": lambda: Habit(in_a_row, conv=conv(), norm=norm(affine=False)),
    "a convolution without bias": lambda: Habit(in_a_row, conv=conv(bias=False), norm=norm()),
    "a convolution read elsewhere": lambda: Habit(read_elsewhere, conv=conv(), norm=norm()),
    "a convolution written elsewhere": lambda: Habit(written_elsewhere, conv=conv(), norm=norm()),
    "a convolution that is an output": lambda: ManyMaps(
        in_a_row, conv=nn.Conv2d(CHANNELS, CLASSES, 1), norm=nn.BatchNorm2d(CLASSES)
    ),
    "tied weights": lambda: Habit(
        tied, conv=conv(), conv_2=conv(), norm=norm(), norm_2=norm(0.002, -0.3)
    ),
    "a weight used by hand": lambda: Habit(functional, conv=conv(), norm=norm()),
    "a norm's weight used by hand": lambda: Habit(norm_read, conv=conv(), norm=norm()),
    "a norm called by keyword": lambda: Habit(by_keyword, conv=conv(), norm=norm()),
    "a map changed in place": lambda: Habit(changed_in_place, conv=conv(), norm=norm()),
    "a branch on the size": lambda: Habit(only_where_wide, conv=conv(), norm=norm()),
    "a branch on the type": lambda: Habit(only_tensors, conv=conv(), norm=norm()),
    "layers under two names": _aliased,
    "layers in a plain list": _listed,
    "an unregistered convolution": lambda: Habit(forgotten, norm=norm()),
    "a hook on the convolution": lambda: _hooked("conv"),
    "a hook on the norm": lambda: _hooked("norm"),
    "a convolution of one's own": lambda: Habit(
        in_a_row, conv=StandardisedConv(CHANNELS, CHANNELS, 3), norm=norm()
    ),
    "a grouped transposed convolution under a norm": lambda: Habit(
        in_a_row, conv=transposed_conv(), norm=norm()
    ),
    "a grouped transposed convolution that is scaled": lambda: Habit(
        scaled, conv=transposed_conv()
    ),
    "pools without a stride": lambda: Habit(pooled),
    "a parametrized convolution": lambda: Habit(
        in_a_row, conv=nn.utils.parametrizations.spectral_norm(conv()), norm=norm()
    ),
}


def with_habit(habit: str) -> nn.Module:
    """Return a network of HABITS, the same each time."""
    torch.manual_seed(0)
    return HABITS[habit]().eval()
