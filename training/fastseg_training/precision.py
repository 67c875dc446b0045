"""The arithmetic of training: float32, or bf16 and fp16 where the machine has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

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


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 where autocast would have it in bf16."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the float32 output."""
        with torch.autocast(x_NCHW.device.type, enabled=False):
            return super().forward(x_NCHW.float())


@contextlib.contextmanager
def fast_depthwise(
    model: nn.Module, precision: torch.dtype | None, device: torch.device
) -> Iterator[None]:
    """Meanwhile, compute in float32 the depthwise convolutions that bf16 makes slower on a CPU.

    oneDNN 3.12 has no bf16 kernel for the gradients of strided and of 5x5 depthwise convolutions:
    22 to 31 ms instead of 0.2 to 11 ms for those of FastSegNet-small at batch 8, 288x288, one
    thread of an EPYC 9004. That was a quarter of the whole step.
    """
    slow = []
    if precision == torch.bfloat16 and device.type == "cpu":
        slow = [layer for layer in model.modules() if _is_slow_in_bf16(layer)]
    for layer in slow:
        layer.__class__ = Float32Conv2d  # the same weights, hooks and names
    try:
        yield
    finally:
        for layer in slow:
            layer.__class__ = nn.Conv2d


def _is_slow_in_bf16(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d or layer.groups == 1:
        return False
    return layer.stride[0] > 1 or layer.kernel_size[0] > 3
