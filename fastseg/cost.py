"""What a network costs: parameters, multiply-adds and activation bytes, stage by stage."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fastseg.fastsegnet import FastSegNet


@dataclass(frozen=True)
class StageCost:
    """The cost of one top-level part of the network for one image."""

    name: str
    parameters: int
    macs: int  # multiply-adds of convolutions and linear layers, as FlopCounterMode counts / 2
    activation_bytes: int  # float32 outputs of convolutions and linear layers


@dataclass(frozen=True)
class Profile:
    """The cost of a whole network at one size."""

    width: int
    height: int
    stages: tuple[StageCost, ...]

    @property
    def parameters(self) -> int:
        """All weights that an exported network holds."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def macs(self) -> int:
        """All multiply-adds for one image."""
        return sum(stage.macs for stage in self.stages)

    @property
    def activation_bytes(self) -> int:
        """All bytes that convolutions write for one image, were nothing reused."""
        return sum(stage.activation_bytes for stage in self.stages)

    def __str__(self) -> str:
        """Return an aligned table."""
        rows = [(s.name, s.parameters, s.macs, s.activation_bytes) for s in self.stages]
        rows.append(("total", self.parameters, self.macs, self.activation_bytes))
        lines = [f"{'stage':<12}{'parameters':>12}{'MMACs':>10}{'activations MB':>16}"]
        lines += [f"{n:<12}{p:>12,}{m / 1e6:>10.1f}{b / 1e6:>16.1f}" for n, p, m, b in rows]
        return "\n".join([f"at {self.width}x{self.height}, one image", *lines])


@runtime_checkable
class Counted(Protocol):
    """A network whose layers are not torch's: it counts by itself."""

    def cost(self, size: tuple[int, int]) -> StageCost:
        """Return the cost of one image of (width, height) pixels."""


def profile(model: nn.Module, size: tuple[int, int]) -> Profile:
    """Run the network once on zeros and count.

    Args:
        model: takes float images (1, 3, H, W).
        size: (width, height) in pixels.
    """
    width, height = size
    if isinstance(model, Counted):
        return Profile(width, height, (model.cost(size),))
    costs: dict[str, list[int]] = {}
    handles = [
        layer.register_forward_hook(_counter(costs.setdefault(name.split(".")[0], [0, 0])))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()
            held = next(chain(model.parameters(), model.buffers()), torch.empty(0))
            model(torch.zeros(1, 3, height, width, device=held.device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return Profile(width, height, tuple(_stages(model, costs)))


def _counter(cost: list[int]) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        weight: Any = layer.weight
        # Each output element (each input element where convolution is transposed) meets the
        # weights of one output (input) channel once.
        meets = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        cost[0] += meets.numel() * weight[0].numel()
        cost[1] += output.numel() * 4

    return count


def _stages(model: nn.Module, costs: dict[str, list[int]]) -> list[StageCost]:
    stages = []
    for name, part in model.named_children():
        if isinstance(model, FastSegNet) and name == "auxiliary_heads":
            continue  # in training only
        macs, activation_bytes = costs.get(name, (0, 0))
        parameters = sum(p.numel() for p in part.parameters())
        stages.append(StageCost(name, parameters, macs, activation_bytes))
    return stages
