"""MIL operations against what Apple's documentation says of them; no vendor library."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.coreml.mil_ops import OPERATIONS
from hypothesis import given
from hypothesis import strategies as st

X = torch.arange(60.0).reshape(1, 3, 4, 5)


def test_pad_type_same_keeps_the_size_and_puts_the_odd_row_at_the_end() -> None:
    y = OPERATIONS["conv"](X, torch.ones(1, 3, 2, 2), pad_type="same")
    assert y.shape == (1, 1, 4, 5)
    assert y[0, 0, 3, 4] == X[0, :, 3, 4].sum()  # below and right of it there is only padding


def test_custom_padding_is_top_bottom_left_right() -> None:
    y = OPERATIONS["conv"](X, torch.ones(1, 3, 1, 1), pad_type="custom", pad=(1, 0, 0, 2))
    assert y.shape == (1, 1, 5, 7)
    assert not y[0, 0, 0].any() and not y[0, 0, :, 5:].any()


def test_an_unknown_pad_type_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="same_lower.*expected valid, custom or same"):
        OPERATIONS["conv"](X, torch.ones(1, 3, 2, 2), pad_type="same_lower")


def test_a_transposed_convolution_crops_and_holds_to_the_shape_it_states() -> None:
    weight = torch.ones(3, 2, 4, 4)
    arguments = {"strides": (2, 2), "pad_type": "custom", "pad": (1, 1, 1, 1)}
    y = OPERATIONS["conv_transpose"](X, weight, **arguments, output_shape=(1, 2, 8, 10))
    assert torch.equal(y, F.conv_transpose2d(X, weight, stride=2, padding=1))
    with pytest.raises(ValueError, match=r"\(1, 2, 9, 10\); expected \(1, 2, 8, 10\)"):
        OPERATIONS["conv_transpose"](X, weight, **arguments, output_shape=(1, 2, 9, 10))


@pytest.mark.parametrize("axis", [1, -3])
def test_an_interleaved_concat_shuffles_channels(axis: int) -> None:
    y = OPERATIONS["concat"]((X, -X), axis, interleave=True)
    assert torch.equal(y, torch.cat([X, -X], 1).view(1, 2, 3, 4, 5).transpose(1, 2).flatten(1, 2))


def test_max_pool_never_picks_padding() -> None:
    y = OPERATIONS["max_pool"](-X - 1, (3, 3), (2, 2), pad_type="custom", pad=(1, 1, 1, 1))
    assert torch.equal(y, F.max_pool2d(-X - 1, 3, 2, 1))


@pytest.mark.parametrize("exclude", [False, True])
def test_avg_pool_counts_padding_only_if_told_to(exclude: bool) -> None:
    y = OPERATIONS["avg_pool"](
        X,
        (3, 3),
        pad_type="custom",
        pad=(1, 1, 1, 1),
        exclude_padding_from_average=exclude,
    )
    expected = F.avg_pool2d(X, 3, 1, 1, count_include_pad=not exclude)
    assert torch.allclose(y, expected)


def test_windows_over_the_end_of_a_map_count_what_is_inside() -> None:
    outside = {"ceil_mode": True, "exclude_padding_from_average": True}
    y = OPERATIONS["avg_pool"](X, (3, 3), (2, 2), **outside)
    assert torch.allclose(y, F.avg_pool2d(X, 3, 2, ceil_mode=True))
    with pytest.raises(ValueError, match="ceil_mode that counts padding"):
        OPERATIONS["avg_pool"](X, (3, 3), (2, 2), ceil_mode=True)


def test_a_convolution_of_rows_of_values_is_padded_left_and_right() -> None:
    row, weight = X[:, :, 0], torch.ones(2, 3, 3)
    y = OPERATIONS["conv"](row, weight, strides=(1,), dilations=(1,), pad_type="custom", pad=(2, 0))
    assert torch.equal(y, F.conv1d(F.pad(row, (2, 0)), weight))


def test_a_layer_norm_takes_its_axes_from_either_end() -> None:
    gamma, beta = torch.arange(3.0) + 1, torch.arange(3.0)
    y = OPERATIONS["layer_norm"](X, axes=(1,), gamma=gamma, beta=beta, epsilon=1e-3)
    expected = F.layer_norm(X.permute(0, 2, 3, 1), (3,), gamma, beta, 1e-3).permute(0, 3, 1, 2)
    assert torch.allclose(y, expected, atol=1e-6)
    whole = OPERATIONS["layer_norm"](X, axes=(-2, -1))
    assert torch.allclose(whole, F.layer_norm(X, X.shape[2:]), atol=1e-6)


def test_products_of_matrices_turn_either_one_round() -> None:
    a, b = X[0], X[0].flip(2)
    assert torch.equal(OPERATIONS["matmul"](a, b, transpose_y=True), a @ b.mT)
    assert torch.equal(OPERATIONS["matmul"](a, b, transpose_x=True), a.mT @ b)


@pytest.mark.parametrize(
    ("mode", "least"),
    [("EXACT", 0.0), ("TANH_APPROXIMATION", 1e-5), ("SIGMOID_APPROXIMATION", 5e-3)],
)
def test_gelu_is_exact_or_one_of_two_approximations(mode: str, least: float) -> None:
    x = torch.linspace(-4, 4, 101)
    off = float((OPERATIONS["gelu"](x, mode) - F.gelu(x)).abs().max())
    assert least <= off <= max(3e-2 * (mode[0] == "S"), 1e-3 * (mode[0] == "T"))


def test_gathered_entries_may_count_from_the_end_and_keep_the_indices_shape() -> None:
    assert torch.equal(OPERATIONS["gather"](X, (2, 0), axis=1), X[:, [2, 0]])
    assert torch.equal(OPERATIONS["gather"](X, -1, axis=-1), X[..., -1])
    index = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    assert torch.equal(OPERATIONS["gather"](X, index, axis=2), X[:, :, index.long()])


def test_reductions_without_axes_are_over_all() -> None:
    for name, expected in (("mean", X.mean()), ("sum", X.sum()), ("max", X.max())):
        assert torch.equal(OPERATIONS[f"reduce_{name}"](X), expected)
    kept = OPERATIONS["reduce_sum"](X, axes=(-1,), keep_dims=True)
    assert torch.equal(kept, X.sum(-1, keepdim=True))


def test_the_larger_of_a_tensor_and_a_number_is_had_either_way_round() -> None:
    for pair in ((X, 30.0), (30.0, X)):
        assert torch.equal(OPERATIONS["maximum"](*pair), X.clamp(min=30))


def test_masks_of_slice_by_index_open_a_side_and_squeeze_takes_an_axis_away() -> None:
    y = OPERATIONS["slice_by_index"](
        X,
        begin=(0, 1, 9, 1),
        end=(9, 9, 3, -1),
        stride=(1, 1, 1, 2),
        begin_mask=(True, False, True, False),
        end_mask=(True, False, False, False),
        squeeze_mask=(False, True, False, False),
    )
    assert torch.equal(y, X[:, 1, :3, 1:-1:2])


def test_pad_lists_axes_from_the_first_for_every_mode() -> None:
    pairs = (0, 0, 0, 0, 1, 0, 0, 2)
    assert torch.equal(
        OPERATIONS["pad"](X, pairs, constant_val=7.0)[0, 0, 0], torch.full((7,), 7.0)
    )
    mirrored = OPERATIONS["pad"](X, pairs, mode="reflect")
    assert torch.equal(mirrored, F.pad(X, (0, 2, 1, 0), mode="reflect"))


def test_upsampling_maps_pixel_centres_unless_corners_are_asked_for() -> None:
    factors = {"scale_factor_height": np.float32(8.0), "scale_factor_width": np.float32(8.0)}
    centres = OPERATIONS["upsample_bilinear"](X, **factors, align_corners=False)
    corners = OPERATIONS["upsample_bilinear"](X, **factors)
    assert torch.equal(
        centres, F.interpolate(X, scale_factor=8, mode="bilinear", align_corners=False)
    )
    assert not torch.allclose(centres, corners, atol=0.1)


def test_affine_weights_are_scale_times_value_minus_zero_point_along_the_axis() -> None:
    data = torch.tensor([[1, -2], [3, 4]], dtype=torch.int8)
    zero_point, scale = torch.tensor([1, 0], dtype=torch.int8), torch.tensor([0.5, 2.0])
    weights = OPERATIONS["constexpr_affine_dequantize"](data, zero_point, scale, axis=0)
    assert weights.tolist() == [[0.0, -1.5], [6.0, 8.0]]


def test_palette_indices_are_unpacked_as_in_apples_example() -> None:
    # constexpr_lut_to_dense in Apple's reference: five 2-bit indices in two bytes, low bits first.
    packed = torch.tensor([0b01_10_11_00, 0b11], dtype=torch.uint8)
    lut = torch.tensor([0.0, 10.0, 20.0, 30.0])
    weights = OPERATIONS["constexpr_lut_to_dense"](packed, lut, shape=(5,))
    assert weights.tolist() == [0.0, 30.0, 20.0, 10.0, 30.0]


@given(st.sampled_from([1, 2, 4, 6, 8]), st.integers(1, 40), st.randoms(use_true_random=False))
def test_any_packed_palette_is_read_back(bits: int, count: int, random: object) -> None:
    index = [random.randrange(1 << bits) for _ in range(count)]  # type: ignore[attr-defined]
    number = sum(value << bits * place for place, value in enumerate(index))
    packed = np.frombuffer(number.to_bytes(-(-bits * count // 8), "little"), np.uint8)
    lut = torch.arange(float(1 << bits))
    weights = OPERATIONS["constexpr_lut_to_dense"](torch.tensor(packed), lut, shape=(1, count))
    assert weights.tolist() == [[float(value) for value in index]]
