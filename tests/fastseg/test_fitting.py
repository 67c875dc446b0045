import numpy as np
import pytest
from fastseg_runtime.arrays.image import resize_bilinear, resize_nearest
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, InputSpec
from hypothesis import given
from hypothesis import strategies as st

from fastseg.fitting import LETTERBOX, STRETCH, covered, fit_image, fit_labels

SIDES = st.integers(1, 90)
FRAME = np.random.default_rng(0).integers(0, 256, (24, 60, 3), np.uint8)
LABEL = FRAME[..., 0] % 5


def test_a_stretched_picture_fills_the_input() -> None:
    spec = InputSpec(32, 32, resize=STRETCH)
    assert np.array_equal(fit_image(FRAME, spec), resize_bilinear(FRAME, 32, 32))
    assert np.array_equal(fit_labels(LABEL, spec), resize_nearest(LABEL, 32, 32))


def test_a_letterboxed_picture_keeps_its_aspect_between_bars_that_nobody_judged() -> None:
    spec = InputSpec(30, 32, mean=100.4, resize=LETTERBOX)
    image_HW3, label_HW = fit_image(FRAME, spec), fit_labels(LABEL, spec)
    assert image_HW3.shape == (32, 30, 3) and label_HW.shape == (32, 30)
    bars = np.r_[0:10, 22:32]  # 60x24 at half its size is 30x12
    assert (image_HW3[bars] == 100).all() and (label_HW[bars] == IGNORE_INDEX).all()
    assert np.array_equal(image_HW3[10:22], resize_bilinear(FRAME, 30, 12))
    assert np.array_equal(label_HW[10:22], resize_nearest(LABEL, 30, 12))


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from((STRETCH, LETTERBOX)))
def test_what_is_covered_is_what_is_judged(
    width: int, height: int, input_width: int, input_height: int, fit: str
) -> None:
    spec = InputSpec(input_width, input_height, resize=fit)
    judged_HW = fit_labels(np.zeros((height, width), np.uint8), spec) == 0
    inner_hw = covered(judged_HW, (height, width), spec)
    assert inner_hw.size and inner_hw.all() and inner_hw.sum() == judged_HW.sum()


def test_a_view_is_returned_whatever_comes_before_the_sides() -> None:
    batch_NKHW = np.zeros((2, 3, 32, 30))
    covered(batch_NKHW, (24, 60), InputSpec(30, 32, resize=LETTERBOX))[:] = 1
    assert batch_NKHW.sum() == 2 * 3 * 12 * 30


def test_pictures_shrunk_far_are_averaged_as_the_runtime_does() -> None:
    stripes_HW3 = np.zeros((60, 400, 3), np.uint8)
    stripes_HW3[:, ::2] = 200
    inner_hw3 = covered(
        fit_image(stripes_HW3, InputSpec(40, 40, resize=LETTERBOX)).transpose(2, 0, 1),
        (60, 400),
        InputSpec(40, 40, resize=LETTERBOX),
    )
    assert inner_hw3 == pytest.approx(100, abs=1)
