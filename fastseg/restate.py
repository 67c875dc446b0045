"""Operations of a network of others, said in those that every format has and that give the same.

A graph is made for one size, so that what an operation does to a map of any size can be said by
what it does to this one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SAMPLED = ("bilinear", "bicubic")  # between pixels, by the factor
# Sides that a map may gain until a factor takes it to a whole number of pixels: 1.5 needs 1 at the
# most, 1.1 needs 9.
MOST_GROWN = 16

Restatements = Mapping[Any, Callable[..., Tensor | None]]
Axis = tuple[int, int, float | None]  # pixels that there are, that are wanted, the factor if given


class Restated(TorchFunctionMode):
    """Says what is called inside of it in other operations, where formats lack the one called.

    Args:
        restatements: by function, what to call in its place with the same arguments; it returns
            None where the function itself may be called.
    """

    def __init__(self, restatements: Restatements) -> None:
        super().__init__()
        self._restatements = restatements

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, or what says the same."""
        kwargs = kwargs or {}
        restate = self._restatements.get(func)
        restated = None if restate is None else restate(*args, **kwargs)
        return func(*args, **kwargs) if restated is None else restated


def spread_dilated_kernels(network: nn.Module) -> None:
    """Write the zeros of dilated transposed convolutions into their kernels, in place.

    TFLite has no transposed convolution that is dilated, TensorRT for RTX none that is strided too.
    """
    for layer in network.modules():
        if type(layer) is not nn.ConvTranspose2d or not any(step > 1 for step in layer.dilation):
            continue
        (down, across), (rows, columns) = layer.dilation, layer.kernel_size
        size = ((rows - 1) * down + 1, (columns - 1) * across + 1)
        spread = layer.weight.detach().new_zeros(*layer.weight.shape[:2], *size)
        spread[..., ::down, ::across] = layer.weight.detach()
        layer.weight = nn.Parameter(spread)
        layer.kernel_size, layer.dilation = size, (1, 1)


def _interpolate(
    x_NChw: Tensor,
    size: Any = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    """Resize a map by what is no whole factor: 9 rows by 0.5 are 4."""
    sides = [int(side) for side in x_NChw.shape[2:]]
    if len(sides) != 2 or align_corners or antialias:
        return None
    factors: Sequence[float | None] = [None, None]
    if scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * 2
        size = [math.floor(side * f) for side, f in zip(sides, factors, strict=True) if f]
    wanted = [int(size)] * 2 if isinstance(size, int) else [int(side) for side in size]
    axes = list(
        zip(sides, wanted, [None, None] if recompute_scale_factor else factors, strict=True)
    )
    if mode in ("nearest", "nearest-exact"):
        return _nearest(x_NChw, axes, 0.5 if mode == "nearest-exact" else 0.0)
    return _between(x_NChw, axes, mode)


def _nearest(x_NChw: Tensor, axes: list[Axis], centre: float) -> Tensor | None:
    """Pick rows and columns, which TFLite's resizing counts from the pixels' centres."""
    if all(wanted % side == 0 and factor in (None, wanted / side) for side, wanted, factor in axes):
        return None
    for axis, (side, wanted, factor) in enumerate(axes, 2):
        # In float32, as torch counts; it copies what is as large or twice as large by any factor.
        exact = factor is None or (not centre and wanted in (side, 2 * side))
        step = np.float32(side / wanted if exact else 1 / factor)  # type: ignore[operator]
        places = (np.arange(wanted, dtype=np.float32) + np.float32(centre)) * step
        picked = np.minimum(places.astype(int), side - 1).tolist()
        x_NChw = x_NChw.index_select(axis, torch.tensor(picked))
    return x_NChw


def _between(x_NChw: Tensor, axes: list[Axis], mode: str) -> Tensor | None:
    """Interpolate by a factor that gives no whole number of pixels.

    torch samples by the factor, TFLite and Core ML by the ratio of the sizes, 4 / 9. The two are
    the same on a map that the factor takes to whole pixels; copies of its border let it grow to
    that, which are what torch reads there, and what they give more is cut off.
    """
    if mode not in SAMPLED or all(f is None or side * f == wanted for side, wanted, f in axes):
        return None
    grown = [_grown(*axis, mode) for axis in axes]
    if None in grown:
        return None
    (height, rows), (width, columns) = filter(None, grown)
    (h, wanted_rows, _), (w, wanted_columns, _) = axes
    larger = F.pad(x_NChw, (0, width - w, 0, height - h), mode="replicate")
    resized = F.interpolate(larger, size=(rows, columns), mode=mode, align_corners=False)
    return resized[..., :wanted_rows, :wanted_columns]


def _grown(side: int, wanted: int, factor: float | None, mode: str) -> tuple[int, int] | None:
    """Return the least side that a factor takes to whole pixels, and their number.

    Where as many pixels are wanted as there are, torch copies them whatever the factor.
    """
    if factor is None or (wanted == side and mode != "bicubic"):
        return side, wanted
    whole = ((new, float(new * factor)) for new in range(side, side + MOST_GROWN))
    return next(((new, int(pixels)) for new, pixels in whole if pixels.is_integer()), None)


def _adaptive(reduce: Callable[..., Tensor]) -> Callable[..., Tensor | None]:
    """Return how to say adaptive pooling whose windows differ in size: a slice for each window.

    Rows are pooled first, then columns.
    """

    def pool(x_NChw: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:
        sides = [int(side) for side in x_NChw.shape[-2:]]
        wanted = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
        counts = [n or side for n, side in zip(wanted, sides, strict=True)]
        axes = list(zip((-2, -1), sides, counts, strict=True))
        if return_indices or not any(side % count for _, side, count in axes):
            return None
        for axis, side, count in axes:
            windows = ((i * side // count, -(-(i + 1) * side // count)) for i in range(count))
            x_NChw = torch.cat(
                [reduce(x_NChw.narrow(axis, i, end - i), axis, True) for i, end in windows], axis
            )
        return x_NChw

    return pool


def _avg_pool2d(
    x_NChw: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    """Say of windows that reach over the border that what lies there does not count.

    torch counts it not as padding, where it pads nothing; formats need to be told.
    """
    padded = any(padding) if isinstance(padding, Sequence) else padding
    if not ceil_mode or padded or not count_include_pad:
        return None
    return F.avg_pool2d(x_NChw, kernel_size, stride, 0, True, False, divisor_override)


def _linspace(start: Any, end: Any, steps: Any, **how: Any) -> Tensor | None:
    """Give the numbers themselves: torch's exporter makes float64 of them and of all behind them.

    A graph has one size, so they are constants.
    """
    if isinstance(start, Tensor) or isinstance(end, Tensor) or how.get("out") is not None:
        return None
    numbers = np.linspace(float(start), float(end), int(steps)).tolist()
    kept = {key: value for key, value in how.items() if key in ("dtype", "device")}
    return torch.tensor(numbers, **{"dtype": torch.get_default_dtype(), **kept})


FOR_ALL: Restatements = {
    torch.linspace: _linspace,
    F.interpolate: _interpolate,
    F.adaptive_avg_pool2d: _adaptive(torch.mean),
    F.adaptive_max_pool2d: _adaptive(torch.amax),
    F.avg_pool2d: _avg_pool2d,
    Tensor.data.__get__: Tensor.detach,  # type: ignore[attr-defined]  # which graphs freeze
    Tensor.mT.__get__: lambda x: x.transpose(-2, -1),  # type: ignore[attr-defined]
}
