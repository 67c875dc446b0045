"""Palettes of weights: as good as the general algorithm's, and exact where they can be."""

import numpy as np
import pytest
from fastseg_exporters.coreml.palette import palettize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

WEIGHTS = np.random.default_rng(0).laplace(0, 0.05, (64, 32, 3, 3)).astype(np.float16)


def squared_error(weights: np.ndarray, bits: int) -> float:
    palette, indices = palettize(weights, bits)
    return float(np.square(palette[indices] - weights.reshape(-1).astype(np.float64)).mean())


def error_of_equal_steps(weights: np.ndarray, bits: int) -> float:
    """Return the mean squared error of 2**bits values at equal distances."""
    step = float(np.ptp(weights.astype(np.float64))) / ((1 << bits) - 1)
    return step**2 / 12


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_a_palette_is_far_better_than_equal_steps(bits: int) -> None:
    assert squared_error(WEIGHTS, bits) < 0.4 * error_of_equal_steps(WEIGHTS, bits)


def test_two_clouds_become_their_means() -> None:
    weights = np.array([-1.25, -1.0, -0.75, 3.5, 4.0, 4.5], np.float32)
    palette, indices = palettize(weights, 1)
    assert palette.tolist() == [-1.0, 4.0]
    assert indices.tolist() == [0, 0, 0, 1, 1, 1]


def test_few_different_weights_are_kept_exactly() -> None:
    weights = np.array([[0.5, -0.25], [0.5, 0.0]], np.float16)
    palette, indices = palettize(weights, 2)
    assert (palette[indices].reshape(2, 2) == weights).all()
    assert len(palette) == 4


@settings(deadline=None)
@given(
    arrays(np.float16, array_shapes(max_side=12), elements=st.floats(-2, 2, width=16)),
    st.sampled_from([1, 2, 4, 6, 8]),
)
def test_every_weight_gets_the_nearest_colour(weights: np.ndarray, bits: int) -> None:
    palette, indices = palettize(weights, bits)
    assert palette.shape == (1 << bits,) and palette.dtype == np.float16
    assert indices.shape == (weights.size,) and indices.dtype == np.uint8
    flat = weights.reshape(-1, 1).astype(np.float64)
    distances = np.abs(palette.astype(np.float64) - flat)
    chosen = np.take_along_axis(distances, indices[:, None].astype(int), 1)[:, 0]
    rounding = 2.0**-9  # of a mean to float16, below 2
    assert (chosen <= distances.min(1) + 2 * rounding).all()
