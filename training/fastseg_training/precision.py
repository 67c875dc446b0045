"""The arithmetic of training: float32, or bf16 and fp16 where the machine has them.

Depthwise convolutions in bf16 on a CPU go by those kernels of oneDNN that are fast. oneDNN 3.12
computes some of their gradients without one: those of the input at stride 2 (31 ms, in float32
3 ms: 240 channels of 45x45, batch 8, one thread of an EPYC 9004) and those of weights larger than
3x3 (75 ms, in float32 22 ms, as here 10 ms: 672 channels of 22x22).

Shape letters: N batch, C channels, H and W pixels of the input, h and w of the output.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from fastseg_training.config import ConfigError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALL = 3  # the one kernel size whose weight gradient is fast in bf16
Pair = tuple[int, int]


def choose_device(name: str) -> torch.device:
    """Return a device; "auto" is the first GPU if there is one.

    Raises:
        ConfigError: there is none of that name here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        why = str(error).partition("\n")[0]
        raise ConfigError(f"no device {name!r} here: {why}; choose auto or cpu") from error


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the type that torch.autocast takes, None for plain float32.

    Args:
        name: "auto", "fp32", "bf16" or "fp16"; auto is bf16 where the device computes in it.
        device: CPUs count with AVX512-BF16, GPUs from compute capability 8.0.

    Raises:
        ConfigError: an unknown name, or fp16 on a CPU.
    """
    if name == "auto":
        name = "bf16" if _has_bf16(device) else "fp32"
    if name not in PRECISIONS:
        raise ConfigError(f"precision is {name!r}; choose auto or one of {sorted(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 needs a GPU; on a CPU choose auto, bf16 or fp32")
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
    for layer, kind in classes.items():  # the same weights, hooks and names
        layer.__class__ = type(f"Fast{kind.__name__}", (FastGradients, kind), {})
    try:
        yield
    finally:
        for layer, kind in classes.items():
            layer.__class__ = kind


def is_slow(layer: nn.Conv2d) -> bool:
    """Return whether a layer is a depthwise convolution with a slow gradient."""
    return (
        layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.kernel_size[0] % 2 == 1
        and layer.kernel_size[0] >= SMALL
        and (layer.stride[0] > 1 or layer.kernel_size[0] > SMALL)
    )


class FastGradients(nn.Conv2d):
    """A convolution, also of a class of somebody's own, whose conv2d is the one below."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the output in bf16 under autocast, as it was otherwise."""
        with _FastConv2d():
            return super().forward(x_NCHW)


class _FastConv2d(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # A class of somebody's own may call it for another layer, or in another of torch's forms.
        is_ours = func is F.conv2d and len(args) > 1 and torch.is_autocast_enabled("cpu")
        if is_ours and _is_depthwise(*args, **kwargs):
            return _conv2d(*args, **kwargs)
        return func(*args, **kwargs)


def _is_depthwise(
    x_NCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Return whether a call is of the form that is_slow() looks for in layers."""
    height, width = weight.shape[-2:]
    return (
        x_NCHW.ndim == 4
        and groups == len(weight) == x_NCHW.shape[1]
        and height == width >= SMALL
        and height % 2 == 1
        and dilation in (1, (1, 1))
        and all(isinstance(v, int) or (type(v) is tuple and len(v) == 2) for v in (stride, padding))
    )


def _conv2d(
    x_NCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    stride, padding = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding))
    y_NChw: Tensor = _Depthwise.apply(x_NCHW, weight, stride, padding)  # type: ignore[no-untyped-call]  # torch's
    return y_NChw if bias is None else y_NChw + bias.to(y_NChw.dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        x_NCHW = x_NCHW.bfloat16()
        ctx.save_for_backward(x_NCHW, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x_NCHW, weight.bfloat16(), None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NChw: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_NCHW, weight = ctx.saved_tensors
        grad_NChw = grad_NChw.contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            kind = torch.bfloat16 if ctx.stride == (1, 1) else torch.float32
            tensors = (grad_NChw.to(kind), x_NCHW.to(kind), weight.to(kind))
            of_input = _backward(*tensors, ctx.stride, ctx.padding, 0).bfloat16()
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(grad_NChw, x_NCHW, weight, ctx.stride, ctx.padding)
        return of_input, of_weight, None, None


def weight_gradient(
    grad_NChw: Tensor, x_NCHW: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """Return the gradient of a depthwise kernel, put together from windows of 3x3.

    A window's gradient is that of a 3x3 convolution of the input moved by the window's place. Next
    windows share a row or column.
    """
    size = weight.shape[-1]
    if size > SMALL:  # else moving would cut off what the padding adds
        x_NCHW = F.pad(x_NCHW, (padding[1], padding[1], padding[0], padding[0]))
        padding = (0, 0)
    height, width = (side - (size - SMALL) for side in x_NCHW.shape[2:])
    window_C133 = weight.new_empty(len(weight), 1, SMALL, SMALL, dtype=torch.bfloat16)
    gradient = torch.empty_like(weight)
    for row in range(0, size - SMALL + 1, SMALL - 1):
        for column in range(0, size - SMALL + 1, SMALL - 1):
            moved_NCHW = x_NCHW[..., row : row + height, column : column + width]
            moved_NCHW = moved_NCHW.contiguous(memory_format=torch.channels_last)
            gradient[..., row : row + SMALL, column : column + SMALL] = _backward(
                grad_NChw, moved_NCHW, window_C133, stride, padding, 1
            )
    return gradient


def _backward(
    grad_NChw: Tensor, x_NCHW: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: int
) -> Tensor:
    """Return the gradient of the input (wanted 0) or of the weight (1)."""
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad_NChw,
        x_NCHW,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        len(weight),
        [wanted == 0, wanted == 1, False],
    )
    return gradients[wanted]
