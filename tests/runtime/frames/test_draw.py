import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.frames.draw import legend, overlay, render

PALETTE = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)


def test_an_overlay_mixes_the_classes_colour_into_the_frame() -> None:
    frame = np.full((1, 3, 3), 100, np.uint8)
    classes = np.array([[0, 1, 255]], np.uint8)
    mixed = overlay(frame, classes, PALETTE, alpha=0.5)
    np.testing.assert_allclose(mixed[0], [[177, 50, 50], [50, 50, 177], [100, 100, 100]], atol=1)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 100), (1.0, 255)])
def test_alpha_zero_is_the_frame_and_one_the_colour(alpha: float, expected: int) -> None:
    frame, classes = np.full((2, 2, 3), 100, np.uint8), np.zeros((2, 2), np.uint8)
    assert overlay(frame, classes, PALETTE, alpha)[0, 0, 0] == expected


def test_frames_taller_than_a_block_of_rows_are_mixed_to_their_end() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (75, 9, 3), np.uint8)
    classes = rng.integers(0, 3, (75, 9), np.uint8)
    exact = (frame.astype(int) + PALETTE[np.minimum(classes, 1)]) / 2
    exact[classes == 2] = frame[classes == 2]
    np.testing.assert_allclose(overlay(frame, classes, PALETTE), exact, atol=1)


def test_maps_of_another_size_and_odd_alphas_are_refused() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="differ in size"):
        overlay(frame, np.zeros((3, 2), np.uint8), PALETTE)
    with pytest.raises(ValueError, match="alpha is 2"):
        overlay(frame, np.zeros((2, 2), np.uint8), PALETTE, alpha=2)


def test_a_legend_shows_every_colour_and_writes_every_name() -> None:
    classes = (ClassInfo("Road", (128, 64, 128)), ClassInfo("Größe", (0, 255, 0)))
    picture = legend(classes)
    colors = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert {(128, 64, 128), (0, 255, 0), (0, 0, 0), (255, 255, 255)} == colors


def test_letters_differ_and_unknown_ones_are_question_marks() -> None:
    masks = {render(chr(code)).tobytes() for code in range(33, 127)}
    assert len(masks) == 94
    np.testing.assert_array_equal(render("é"), render("?"))
