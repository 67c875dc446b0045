"""What is said in other operations gives the same as in torch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from fastseg.restate import FOR_ALL, Restated, spread_dilated_kernels
from tests.doubles.operators import OPERATORS

MODES = ("bilinear", "bicubic", "nearest", "nearest-exact", "area")
X = torch.randn(1, 8, 9, 13, generator=torch.manual_seed(0))


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_restated_operation_gives_what_torch_gives(kind: str) -> None:
    torch.manual_seed(0)
    operator = OPERATORS[kind]().eval()
    with torch.inference_mode():
        expected = operator(X)
        with Restated(FOR_ALL):
            found = operator(X)
    assert torch.allclose(found, expected, atol=1e-6)


@settings(max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.one_of(st.sampled_from([0.25, 0.5, 2 / 3, 1.05, 1.1, 1.5, 2.1, 3]), st.floats(0.3, 4)),
    st.sampled_from(MODES),
)
@example(9, 9, 1.1, "bilinear")  # as many pixels as before, which torch copies
@example(9, 9, 2.1, "nearest")  # twice as many, which it repeats
def test_resizing_by_any_factor_gives_what_torch_gives(
    height: int, width: int, factor: float, mode: str
) -> None:
    if min(height, width) * factor < 1:
        return
    x = torch.randn(1, 2, height, width, generator=torch.manual_seed(1))
    expected = F.interpolate(x, scale_factor=factor, mode=mode)
    with Restated(FOR_ALL):
        found = F.interpolate(x, scale_factor=factor, mode=mode)
    assert torch.allclose(found, expected, atol=1e-4)


@settings(max_examples=40)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30),
    st.sampled_from(MODES),
)  # fmt: skip
def test_resizing_to_any_size_gives_what_torch_gives(
    height: int, width: int, rows: int, columns: int, mode: str
) -> None:
    x = torch.randn(1, 2, height, width, generator=torch.manual_seed(1))
    with Restated(FOR_ALL):
        found = F.interpolate(x, size=(rows, columns), mode=mode)
    assert torch.equal(found, F.interpolate(x, size=(rows, columns), mode=mode))


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9))
def test_adaptive_pooling_to_any_size_gives_what_torch_gives(
    height: int, width: int, rows: int, columns: int
) -> None:
    x = torch.randn(1, 2, height, width, generator=torch.manual_seed(1))
    for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        with Restated(FOR_ALL):
            found = pool(x, (rows, columns))
        assert torch.allclose(found, pool(x, (rows, columns)), atol=1e-6)


def test_the_kernel_of_a_dilated_transposed_convolution_may_hold_its_zeros() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 4, (3, 2), 2, (1, 2), (1, 0), groups=2, dilation=(3, 1))
    plain = nn.ConvTranspose2d(8, 4, 3, 2, 1)
    expected, weight = layer(X), plain.weight
    spread_dilated_kernels(nn.Sequential(layer, plain))
    assert layer.dilation == (1, 1) and layer.kernel_size == (7, 2)
    assert torch.allclose(layer(X), expected, atol=1e-6)
    assert plain.weight is weight
