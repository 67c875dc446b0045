"""What TFLite's converter is given in other operations is what torch computes."""

import torch
import torch.nn.functional as F
from fastseg_exporters.tflite.restate import RESTATED
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastseg.restate import Restated

X = torch.randn(1, 4, 6, 7, generator=torch.manual_seed(0))


@settings(max_examples=40)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([1, 4]),
)
def test_a_transposed_convolution_of_uneven_paddings_is_torchs(
    kernel: int, stride: int, padding: int, more: int, groups: int
) -> None:
    assume(more < stride)
    weight = torch.randn(4, 2, kernel, kernel, generator=torch.manual_seed(1))
    arguments = (weight, torch.arange(2.0 * groups), stride, padding, more, groups)
    expected = F.conv_transpose2d(X, *arguments)
    with Restated(RESTATED):
        found = F.conv_transpose2d(X, *arguments)
    assert torch.allclose(found, expected, atol=1e-5)


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 3), st.integers(0, 2)
)  # fmt: skip
def test_a_mean_that_leaves_padding_out_is_torchs(
    window: tuple[int, int], stride: int, padding: int
) -> None:
    assume(2 * padding <= min(window))
    expected = F.avg_pool2d(X, window, stride, padding, count_include_pad=False)
    with Restated(RESTATED):
        found = F.avg_pool2d(X, window, stride, padding, count_include_pad=False)
    assert torch.allclose(found, expected, atol=1e-6)
