"""The arithmetic of training: float32, or bf16 and fp16 where the machine has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from fastseg_training.depthwise import is_slow, with_fast_gradients

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return a device; "auto" is the first GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the type that torch.autocast takes, None for plain float32.

    Args:
        name: "auto", "fp32", "bf16" or "fp16"; auto is bf16 where the device computes in it.
        device: CPUs count with AVX512-BF16, GPUs from compute capability 8.0.

    Raises:
        ValueError: an unknown name, or fp16 on a CPU.
    """
    if name == "auto":
        name = "bf16" if _has_bf16(device) else "fp32"
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}; choose auto or one of {sorted(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("fp16 needs a GPU; on a CPU choose auto, bf16 or fp32")
    return PRECISIONS[name]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@contextlib.contextmanager
def fast_depthwise(
    model: nn.Module, precision: torch.dtype | None, device: torch.device
) -> Iterator[None]:
    """Meanwhile, take the gradients of depthwise convolutions by kernels that are fast in bf16."""
    classes: dict[nn.Conv2d, type[nn.Conv2d]] = {}
    if precision == torch.bfloat16 and device.type == "cpu":
        layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        classes = {layer: type(layer) for layer in layers if is_slow(layer)}
    for layer in classes:
        layer.__class__ = with_fast_gradients(layer)  # the same weights, hooks and names
    try:
        yield
    finally:
        for layer, kind in classes.items():
            layer.__class__ = kind
