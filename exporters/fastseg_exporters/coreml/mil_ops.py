"""What the operations of a Core ML program compute, in torch: one function per MIL type.

The functions' parameters carry MIL's own names and defaults, so an operation is called with its
inputs as they stand, and an input that a function does not know is an error. Shape letters: N
batch, C channels, H and W pixels. Tensors are float32 whatever the program stores.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Ints = tuple[int, ...]
Masks = tuple[bool, ...]

OPERATIONS: dict[str, Callable[..., Any]] = {
    # Two tensors, or one and a number.
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "floor_div": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "maximum": lambda x, y: torch.maximum(*_tensors(x, y)),
    "minimum": lambda x, y: torch.minimum(*_tensors(x, y)),
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "logical_and": lambda x, y: x & y,
    "logical_or": lambda x, y: x | y,
    # One tensor.
    "abs": lambda x: x.abs(),
    "sign": lambda x: x.sign(),
    "floor": lambda x: x.floor(),
    "ceil": lambda x: x.ceil(),
    "round": lambda x: x.round(),
    "exp": lambda x: x.exp(),
    "log": lambda x, epsilon=1e-45: (x + epsilon).log(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "erf": lambda x: x.erf(),
    "square": lambda x: x.square(),
    "sqrt": lambda x: x.sqrt(),
    "rsqrt": lambda x, epsilon=1e-12: (x + epsilon).rsqrt(),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "logical_not": lambda x: ~x,
    # Activations.
    "relu": lambda x: x.relu(),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, alpha),
    "prelu": lambda x, alpha: F.prelu(x, alpha),
    "relu6": lambda x: x.clamp(0, 6),
    "thresholded_relu": lambda x, alpha=1.0: torch.where(x >= alpha, x, 0.0),
    "threshold": lambda x, alpha: x.clamp(min=alpha),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": lambda x: F.silu(x),
    "softplus": lambda x: F.softplus(x),
    "softsign": lambda x: F.softsign(x),
    "tanh": lambda x: x.tanh(),
    "softmax": lambda x, axis=-1: x.softmax(axis),
    # Products.
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    # Other shapes, other places.
    "cast": lambda x, dtype: x,  # the result is stored in its type, whatever the operation
    "identity": lambda x: x,
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, upscale_factor),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, downscale_factor),
    "concat": lambda values, axis, interleave=False: _concat(values, axis, interleave),
    "stack": lambda values, axis: torch.stack(values, axis),
    "tile": lambda x, reps: x.repeat(reps),
    "transpose": lambda x, perm: x.permute(perm),
    "reverse": lambda x, axes=None: x.flip(range(x.ndim) if axes is None else axes),
    "reshape": lambda x, shape: x.reshape(shape),
    "expand_dims": lambda x, axes: x.reshape(_expanded(x.shape, axes)),
    "squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(axes),
    "crop": lambda x, crop_height, crop_width: F.pad(x, [-p for p in (*crop_width, *crop_height)]),
    # Over axes; None is all of them.
    "reduce_mean": lambda x, axes=None, keep_dims=False: x.mean(axes, keep_dims),
    "reduce_sum": lambda x, axes=None, keep_dims=False: x.sum(axes, keep_dims),
    "reduce_max": lambda x, axes=None, keep_dims=False: x.amax(axes or (), keep_dims),
    "reduce_min": lambda x, axes=None, keep_dims=False: x.amin(axes or (), keep_dims),
    "reduce_sum_square": lambda x, axes=None, keep_dims=False: x.square().sum(axes, keep_dims),
    "reduce_l1_norm": lambda x, axes=None, keep_dims=False: x.abs().sum(axes, keep_dims),
    "reduce_l2_norm": lambda x, axes=None, keep_dims=False: x.square().sum(axes, keep_dims).sqrt(),
    "reduce_argmax": lambda x, axis=-1, keep_dims=False: x.argmax(axis, keep_dims),
    # Norms.
    "batch_norm": lambda x, mean, variance, gamma=None, beta=None, epsilon=1e-5: F.batch_norm(
        x, mean, variance, gamma, beta, eps=epsilon
    ),
    "instance_norm": lambda x, gamma=None, beta=None, epsilon=1e-5: F.instance_norm(
        x, weight=gamma, bias=beta, eps=epsilon
    ),
}


def operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function into OPERATIONS under its name, which is the MIL type."""
    OPERATIONS[function.__name__] = function
    return function


def _tensors(*operands: Tensor | float) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(operand) for operand in operands)


def _concat(values: tuple[Tensor, ...], axis: int, interleave: bool) -> Tensor:
    """Join along an axis; interleaved is first of each, second of each: a channel shuffle."""
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def _expanded(shape: Ints, axes: Ints) -> list[int]:
    sides, rank = iter(shape), len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    return [1 if axis in new else next(sides) for axis in range(rank)]


def _padding(
    sides: Ints,
    window: Ints,
    strides: Ints,
    pad_type: str = "valid",
    pad: Ints = (0, 0, 0, 0),
) -> list[int]:
    """Return the padding as F.pad takes it: left and right, then top and bottom if there is height.

    Operations hand on what they are told of it, so that one unknown to this is an error too.
    """
    if pad_type == "valid":
        return [0, 0] * len(sides)
    if pad_type == "custom":
        pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    elif pad_type == "same":
        pairs = [_same(*along) for along in zip(sides, window, strides, strict=True)]
    else:
        raise ValueError(f"pad_type {pad_type!r}; expected valid, custom or same")
    return [amount for pair in reversed(pairs) for amount in pair]


def _same(side: int, window: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + window - side, 0)
    return total // 2, total - total // 2


@operation
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Multiply the last two axes as matrices."""
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


@operation
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """Return x times the normal distribution up to x, or one of two approximations of that."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


@operation
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Bring the values along axes to mean 0 and variance 1, then times gamma, plus beta."""
    over = tuple(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    shape = [side if axis in over else 1 for axis, side in enumerate(x.shape)]
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    y = (x - mean) * (variance + epsilon).rsqrt()
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


@operation
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Divide by the length over the last three axes."""
    return x / (x.square().sum((-3, -2, -1), keepdim=True) + epsilon).sqrt()


@operation
def gather(
    x: Tensor,
    indices: Any,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Take entries along an axis; negative ones count from the end."""
    if batch_dims:
        raise ValueError(f"gather with batch_dims {batch_dims}; expected 0")
    axis %= x.ndim
    taken = torch.as_tensor(indices).long() % x.shape[axis]
    shape = (*x.shape[:axis], *taken.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, taken.reshape(-1)).reshape(shape)


@operation
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints = (1, 1),
    dilations: Ints = (1, 1),
    groups: int = 1,
    **padding: Any,
) -> Tensor:
    """Convolve; weights are (C_out, C_in / groups, KH, KW), or without KH for a row of values."""
    window = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    padded = F.pad(x, _padding(x.shape[2:], window, strides, **padding))
    convolve = F.conv1d if x.ndim == 3 else F.conv2d
    return convolve(padded, weight, bias, strides, 0, dilations, groups)


@operation
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints = (1, 1),
    dilations: Ints = (1, 1),
    groups: int = 1,
    output_shape: Ints | None = None,
    **padding: Any,
) -> Tensor:
    """Convolve transposed, then cut `pad` off; weights are (C_in, C_out / groups, KH, KW)."""
    if padding.get("pad_type") == "same":
        raise ValueError("conv_transpose with pad_type 'same'; expected valid or custom")
    whole = F.conv_transpose2d(x, weight, bias, strides, 0, 0, groups, dilations)
    y = F.pad(whole, [-p for p in _padding(x.shape[2:], (), (), **padding)])
    if output_shape not in (None, tuple(y.shape)):
        raise ValueError(f"conv_transpose to {output_shape}; expected {tuple(y.shape)}")
    return y


@operation
def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (1, 1),
    ceil_mode: bool = False,
    **padding: Any,
) -> Tensor:
    """Take the largest value of each window."""
    amounts = _padding(x.shape[2:], kernel_sizes, strides, **padding)
    padded = F.pad(x, amounts, value=-math.inf)
    return F.max_pool2d(padded, kernel_sizes, strides, ceil_mode=ceil_mode)


@operation
def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (1, 1),
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
    **padding: Any,
) -> Tensor:
    """Take the mean of each window, of what is inside of the map if told so.

    With ceil_mode windows reach over the end; what counts there is known only where nothing is
    padded and what lies outside does not count.
    """
    amounts = _padding(x.shape[2:], kernel_sizes, strides, **padding)
    if ceil_mode and (any(amounts) or not exclude_padding_from_average):
        raise ValueError("avg_pool with ceil_mode that counts padding; expected it to be left out")
    mean = F.avg_pool2d(F.pad(x, amounts), kernel_sizes, strides, ceil_mode=ceil_mode)
    if not exclude_padding_from_average:
        return mean
    inside = F.pad(torch.ones_like(x), amounts)
    return mean / F.avg_pool2d(inside, kernel_sizes, strides, ceil_mode=ceil_mode)


@operation
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last axes; `pad` lists before and after of each, the first axis first."""
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    while len(pairs) > 2 and mode != "constant" and not any(pairs[0]):
        del pairs[0]  # torch wants the padded axes alone here
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    if mode == "constant":
        return F.pad(x, amounts, value=constant_val)
    return F.pad(x, amounts, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


@operation
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Masks | None = None,
    end_mask: Masks | None = None,
    squeeze_mask: Masks | None = None,
) -> Tensor:
    """Index as x[begin:end:stride] on every axis; a mask means "from the start", "to the end"."""
    none = (False,) * x.ndim
    begin_mask, end_mask, squeeze_mask = (m or none for m in (begin_mask, end_mask, squeeze_mask))
    index: list[int | slice] = []
    for axis, step in enumerate(stride or (1,) * x.ndim):
        first = None if begin_mask[axis] else begin[axis]
        last = None if end_mask[axis] else end[axis]
        index.append(begin[axis] if squeeze_mask[axis] else slice(first, last, step))
    return x[tuple(index)]


@operation
def split(x: Tensor, axis: int, num_splits: int = 0, split_sizes: Ints = ()) -> Any:
    """Cut into several tensors along an axis."""
    sizes = list(split_sizes) or x.shape[axis] // num_splits
    return torch.split(x, sizes, axis)


@operation
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Upsample; without align_corners pixel centres are mapped, as torch does."""
    if half_pixel_centers not in (None, not align_corners):
        raise ValueError("upsample_bilinear that maps corners; expected pixel centres")
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


@operation
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    """Repeat pixels."""
    return F.interpolate(x, _scaled(x, scale_factor_height, scale_factor_width), mode="nearest")


def _scaled(x: Tensor, factor_height: float, factor_width: float) -> tuple[int, int]:
    # Factors are stored as float32: 45 -> 360 must not become 359.
    return (
        math.floor(x.shape[2] * factor_height + 1e-3),
        math.floor(x.shape[3] * factor_width + 1e-3),
    )


@operation
def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    """Return scale * (data - zero point); both may differ along the axis."""
    shape = [-1 if i == axis else 1 for i in range(quantized_data.ndim)]
    return (quantized_data.float() - zero_point.reshape(shape).float()) * scale.reshape(shape)


@operation
def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, shape: Ints) -> Tensor:
    """Look indices up in a palette; they are packed in bytes, the least significant bit first."""
    bits_per_index = int(math.log2(len(lut)))
    bits = np.unpackbits(
        indices.numpy(), count=math.prod(shape) * bits_per_index, bitorder="little"
    )
    index = bits.reshape(-1, bits_per_index) @ (1 << np.arange(bits_per_index))
    return lut[torch.from_numpy(index)].reshape(shape)
