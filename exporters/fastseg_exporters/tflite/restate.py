"""Operations that TFLite's converter lacks, said in those that it has and that give the same."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.restate import Restatements


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else (*value, *value)[:2]
    return first, second


def _conv_transpose2d(
    x_NChw: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    """Cut out of the whole result what paddings that differ at its two ends leave."""
    cut, more = _pair(padding), _pair(output_padding)
    if not any(more) or any(extra > end for extra, end in zip(more, cut, strict=True)):
        return None
    whole = F.conv_transpose2d(x_NChw, weight, bias, stride, 0, 0, groups, dilation)
    (top, left), (rows, columns) = cut, whole.shape[2:]
    return whole[..., top : rows - top + more[0], left : columns - left + more[1]]


def _avg_pool2d(
    x_NChw: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    """Count padding, and then make good for it: how much of it a window has is known."""
    window, pads = _pair(kernel_size), _pair(padding)
    if count_include_pad or ceil_mode or divisor_override or not any(pads):
        return None
    mean = F.avg_pool2d(x_NChw, kernel_size, stride, padding)
    steps = window if stride is None else _pair(stride)
    axes = zip(x_NChw.shape[2:], window, steps, pads, mean.shape[2:], strict=True)
    rows, columns = (
        torch.tensor(
            [
                k / (min(i * step - pad + k, int(side)) - max(i * step - pad, 0))
                for i in range(count)
            ]
        )
        for side, k, step, pad, count in axes
    )
    return mean * rows[:, None] * columns


RESTATED: Restatements = {F.conv_transpose2d: _conv_transpose2d, F.avg_pool2d: _avg_pool2d}
