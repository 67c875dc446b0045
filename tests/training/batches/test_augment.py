import dataclasses

import cv2
import numpy as np
import pytest
from fastseg_training.batches.augment import (
    Augmentation,
    Variation,
    apply_variation,
    draw_box,
    draw_variation,
)

from fastseg.data import Array

NO_COLOR = Augmentation(brightness=0, contrast=0, saturation=0, tint=0, blur=0)
STILL = dataclasses.replace(NO_COLOR, scale_min=1, scale_max=1, flip=0)
COLORS = np.array([[20, 40, 60], [220, 30, 90], [30, 200, 120], [90, 90, 250]], np.uint8)


def blocks(width: int = 120, height: int = 80, side: int = 20) -> Array:
    """A class map of squares."""
    y_HW, x_HW = np.mgrid[:height, :width] // side
    return ((x_HW + 2 * y_HW) % 4).astype(np.uint8)


def vary(
    options: Augmentation, label_HW: Array, crop: tuple[int, int], seed: int
) -> tuple[Array, Array]:
    variation = draw_variation(np.random.default_rng(seed), options, label_HW, crop)
    return apply_variation(variation, COLORS[label_HW], label_HW, crop)


@pytest.mark.parametrize("seed", range(20))
def test_image_and_label_stay_aligned(seed: int) -> None:
    image_hw3, label_hw = vary(NO_COLOR, blocks(), (64, 64), seed)
    expected_hw3 = COLORS[np.where(label_hw == 255, 0, label_hw)]
    inside_hw = label_hw != 255
    # Interpolation blends colours along the borders of classes and of the picture alone.
    square = np.ones((5, 5), np.uint8)
    flat_hw = cv2.erode(label_hw, square) == cv2.dilate(label_hw, square)
    flat_hw[[0, -1]] = flat_hw[:, [0, -1]] = False
    assert (inside_hw & flat_hw).mean() > 0.2
    np.testing.assert_array_equal(image_hw3[inside_hw & flat_hw], expected_hw3[inside_hw & flat_hw])


def test_borders_move_by_less_than_half_a_pixel_between_image_and_label() -> None:
    """A step from black to white is half way up where the label changes."""
    label_HW = np.zeros((40, 200), np.uint8)
    label_HW[:, 100:] = 1
    image_HW3 = np.repeat(label_HW[..., None] * 255, 3, axis=2)
    options = dataclasses.replace(NO_COLOR, scale_min=1.5, scale_max=1.5, flip=0)
    seen = 0
    for seed in range(30):
        variation = draw_variation(np.random.default_rng(seed), options, label_HW, (128, 32))
        image_hw3, label_hw = apply_variation(variation, image_HW3, label_HW, (128, 32))
        if label_hw.min() != label_hw.max():
            np.testing.assert_array_equal(image_hw3[..., 0] > 127, label_hw == 1)
            seen += 1
    assert seen > 5


def test_an_unvaried_crop_is_a_piece_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    image_HW3 = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    label_HW = rng.integers(0, 9, (50, 70), dtype=np.uint8)
    exact = Variation(np.array([[1.0, 0, 11], [0, 1, 7]]), np.eye(3, 4), 0.0)
    image_hw3, label_hw = apply_variation(exact, image_HW3, label_HW, (32, 32))
    np.testing.assert_array_equal(image_hw3, image_HW3[7:39, 11:43])
    np.testing.assert_array_equal(label_hw, label_HW[7:39, 11:43])


def test_a_flipped_crop_is_its_mirror_image() -> None:
    label_HW = blocks(64, 64)
    plain = vary(STILL, label_HW, (64, 64), seed=0)
    mirrored = vary(dataclasses.replace(STILL, flip=1), label_HW, (64, 64), seed=0)
    for image, mirror in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(image[:, ::-1], mirror)


def test_outside_of_a_small_picture_is_grey_and_ignored() -> None:
    image_hw3, label_hw = vary(STILL, blocks(32, 32), (64, 64), seed=3)
    assert (label_hw != 255).sum() == 32 * 32
    outside_hw = cv2.erode((label_hw == 255).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert outside_hw.mean() > 0.7
    assert (image_hw3[outside_hw] == 128).all()


def test_zooms_stay_in_their_range_and_reach_both_sides_of_one() -> None:
    rng, label_HW = np.random.default_rng(0), blocks()
    options = Augmentation(scale_min=0.5, scale_max=2.0)
    steps = [
        abs(draw_variation(rng, options, label_HW, (64, 64)).image_from_crop_23[0, 0])
        for _ in range(300)
    ]
    assert 0.5 <= min(steps) < 0.55 and 1.8 < max(steps) <= 2.0
    assert np.median(steps) == pytest.approx(1.0, abs=0.15)


def test_class_centred_crops_show_a_rare_class_far_more_often() -> None:
    label_HW = np.zeros((200, 200), np.uint8)
    label_HW[150:153, 20:23] = 1

    def share(probability: float) -> float:
        options = dataclasses.replace(STILL, class_centred=probability)
        crops = [vary(options, label_HW, (32, 32), seed)[1] for seed in range(100)]
        return float(np.mean([(crop == 1).any() for crop in crops]))

    assert share(0.0) < 0.15
    assert 0.35 < share(1.0) < 0.7  # half of them are laid around the rare class


def test_colours_vary_within_bounds_and_labels_do_not() -> None:
    label_HW = blocks()
    options = dataclasses.replace(STILL, brightness=0.2, contrast=0.3, saturation=0.3, tint=0.1)
    plain = vary(STILL, label_HW, (64, 64), seed=5)
    varied = vary(options, label_HW, (64, 64), seed=5)
    np.testing.assert_array_equal(plain[1], varied[1])
    shifts = [
        int(vary(options, label_HW, (64, 64), seed)[0].mean()) - int(plain[0].mean())
        for seed in range(40)
    ]
    assert min(shifts) < -15 and max(shifts) > 15


def test_blur_softens_the_picture_and_leaves_the_label() -> None:
    label_HW = blocks(side=4)
    plain = vary(STILL, label_HW, (64, 64), seed=1)
    blurred = vary(dataclasses.replace(STILL, blur=1.0), label_HW, (64, 64), seed=1)
    assert blurred[0].std() < plain[0].std()
    assert set(np.unique(blurred[1])) <= set(np.unique(label_HW))


def test_equal_seeds_draw_equal_variations() -> None:
    first, second = (vary(Augmentation(), blocks(), (64, 64), seed=9) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_pixel_that_a_crop_is_laid_around_stays_a_quarter_off_its_edges() -> None:
    label_HW = np.full((200, 200), 255, np.uint8)
    label_HW[100, 100] = 1
    image_HW3 = np.zeros((200, 200, 3), np.uint8)
    options = dataclasses.replace(STILL, class_centred=1.0)
    places = []
    for seed in range(300):
        variation = draw_variation(np.random.default_rng(seed), options, label_HW, (40, 40))
        crop = apply_variation(variation, image_HW3, label_HW, (40, 40))[1]
        places.append(np.argwhere(crop == 1)[0])
    assert np.min(places) >= 9 and np.max(places) <= 30  # 10 to 30, rounded to pixels
    assert np.min(places) <= 11 and np.max(places) >= 28


def test_a_picture_turned_by_half_is_the_one_that_is_flipped_both_ways() -> None:
    label_HW = blocks(64, 64)

    class Half:
        """Chance that turns by the whole angle."""

        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def uniform(self, low: float, high: float, *size: int) -> float | Array:
            return high if high == 180 else self.rng.uniform(low, high, *size)

        def random(self) -> float:
            return 0.0

    options = dataclasses.replace(STILL, rotation=180)
    variation = draw_variation(Half(), options, label_HW, (64, 64))  # type: ignore[arg-type]
    turned = apply_variation(variation, COLORS[label_HW], label_HW, (64, 64))
    both = dataclasses.replace(STILL, flip=1, flip_vertical=1)
    for image, flipped in zip(turned, vary(both, label_HW, (64, 64), 0), strict=True):
        np.testing.assert_array_equal(image, flipped)


@pytest.mark.parametrize("seed", range(10))
def test_turned_pictures_stay_aligned_with_their_labels(seed: int) -> None:
    options = dataclasses.replace(NO_COLOR, rotation=90, flip_vertical=0.5)
    image_hw3, label_hw = vary(options, blocks(), (64, 64), seed)
    square = np.ones((5, 5), np.uint8)
    flat_hw = cv2.erode(label_hw, square) == cv2.dilate(label_hw, square)
    flat_hw[[0, -1]] = flat_hw[:, [0, -1]] = False
    inside_hw = flat_hw & (label_hw != 255)
    assert inside_hw.mean() > 0.1
    np.testing.assert_array_equal(image_hw3[inside_hw], COLORS[label_hw[inside_hw]])


def test_exposure_doubles_and_halves_and_haze_fades_into_a_bright_veil() -> None:
    label_HW = np.full((64, 64), 3, np.uint8)
    options = dataclasses.replace(STILL, exposure=1)
    reds = [vary(options, label_HW, (32, 32), seed)[0][0, 0, 0] for seed in range(60)]
    assert 45 <= min(reds) < 55 and 165 < max(reds) <= 180
    options = dataclasses.replace(STILL, haze=1)
    blues = [vary(options, label_HW, (32, 32), seed)[0][0, 0, 2] for seed in range(60)]
    assert 220 <= min(blues) < 223 and 245 < max(blues) <= 250


def test_boxes_lie_in_the_crop_and_are_of_all_sizes() -> None:
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(500):
        left, top, right, bottom = draw_box(rng, (64, 32))
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 32
        areas.append((right - left) * (bottom - top) / (64 * 32))
    assert np.quantile(areas, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.06)


@pytest.mark.parametrize(
    "options", [{"cutmix": 1.1}, {"haze": -0.1}, {"flip": 2}, {"rotation": -1}, {"exposure": -1}]
)
def test_a_probability_has_to_be_one(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; expected 0"):
        Augmentation(**options)  # type: ignore[arg-type]
