import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import (
    BilinearResizer,
    as_rgb_uint8,
    parse_size,
    resize_bilinear,
    resize_nearest,
    swap_channels,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import noise

Array = np.ndarray[Any, Any]
SIDES = st.integers(1, 70)


def exact(image_HW3: Array, width: int, height: int) -> Array:
    """Bilinear by pixel centres in double precision, as torch computes it."""
    image_1CHW = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None].double()
    out = F.interpolate(image_1CHW, size=(height, width), mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0).numpy()


def resize_by_numpy(image_HW3: Array, width: int, height: int, swap: bool = False) -> Array:
    out = np.empty((height, width, 3), np.uint8)
    height_in, width_in = image_HW3.shape[:2]
    BilinearResizer((height_in, width_in), (height, width), swap)(image_HW3, out)
    return out


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_numpy_rounds_the_exact_bilinear_value(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    frame = noise(height, width, seed)
    found = resize_by_numpy(frame, new_width, new_height)
    assert np.abs(found - exact(frame, new_width, new_height)).max() <= 0.501


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_numpy_and_opencv_agree_to_one_grey_level(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    frame = noise(height, width, seed)
    by_opencv = resize_bilinear(frame, new_width, new_height).astype(int)
    assert np.abs(by_opencv - resize_by_numpy(frame, new_width, new_height)).max() <= 1


def test_a_camera_frame_is_resized_alike_by_numpy_and_opencv() -> None:
    frame = noise(720, 1280)
    by_opencv = resize_bilinear(frame, 1024, 512).astype(int)
    assert np.abs(by_opencv - resize_by_numpy(frame, 1024, 512)).max() <= 1


def test_resizing_works_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "opencv", lambda: None)
    frame = noise(30, 40)
    assert np.array_equal(resize_bilinear(frame, 20, 15), resize_by_numpy(frame, 20, 15))


def test_the_resizer_takes_any_strides_and_exchanges_channels_on_the_way() -> None:
    frame = noise(60, 80)
    for view in (frame[::2, ::-2], frame[5:40, 7:50], frame.transpose(1, 0, 2)):
        plain = resize_by_numpy(np.ascontiguousarray(view), 31, 17)
        assert np.array_equal(resize_by_numpy(view, 31, 17), plain)
        assert np.array_equal(resize_by_numpy(view, 31, 17, swap=True), plain[..., ::-1])


def test_the_resizer_writes_into_a_part_of_a_larger_image() -> None:
    canvas = np.full((50, 60, 3), 7, np.uint8)
    frame = noise(20, 20)
    BilinearResizer((20, 20), (30, 40))(frame, canvas[10:40, 15:55])
    assert np.array_equal(canvas[10:40, 15:55], resize_by_numpy(frame, 40, 30))
    canvas[10:40, 15:55] = 7
    assert np.all(canvas == 7)


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    ids = np.array([[1, 2], [3, 4]], np.uint8)
    assert np.array_equal(
        resize_nearest(ids, 4, 4), [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    )
    assert np.array_equal(resize_nearest(ids, 1, 3), [[2], [4], [4]])


def test_swapping_channels_is_its_own_inverse() -> None:
    frame = noise()
    swapped, back = np.empty_like(frame), np.empty_like(frame)
    swap_channels(frame, swapped)
    swap_channels(swapped, back)
    assert np.array_equal(swapped, frame[..., ::-1])
    assert np.array_equal(back, frame)


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        (np.zeros((4, 5), np.uint8), r"repeat the grey channel"),
        (np.zeros((4, 5, 4), np.uint8), r"frame\[\.\.\., :3\]"),
        (np.zeros((3, 4, 5), np.uint8), r"put channels last"),
        (np.zeros((4, 5, 3), np.uint16), r"16-bit"),
        (np.zeros((4, 5, 3), np.float32), r"without normalisation"),
        (np.zeros((0, 5, 3), np.uint8), r"sides are 1 to"),
        (np.zeros((1, 40000, 3), np.uint8), r"sides are 1 to"),
        ("not a frame", r"expected a frame of uint8 \(H, W, 3\), got"),
    ],
)
def test_a_frame_of_another_kind_is_refused_with_advice(frame: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        as_rgb_uint8(frame)


def test_a_broken_opencv_counts_as_absent(tmp_path: Any) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from fastseg_runtime.arrays.image import opencv; print(opencv())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "None"


@given(st.integers(1, 32767), st.integers(1, 32767), st.sampled_from("xX"))
def test_a_size_is_read_as_width_and_height(width: int, height: int, by: str) -> None:
    assert parse_size(f"{width}{by}{height}") == (width, height)


@given(st.text("0123456789xX -.٣", max_size=9) | st.text())
def test_a_text_is_a_size_or_one_error(text: str) -> None:
    try:
        assert all(0 < side < 32768 for side in parse_size(text))
    except ValueError as error:
        assert "; write WxH, 1 to 32767 pixels each" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "480",
        "480x",
        "x360",
        "480x0",
        "-1x5",
        "4.5x3",
        "32768x1",
        "٣x٣",
        "1x2x3",
        " 1x2",
        "9" * 5000 + "x1",
    ],
)
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write WxH"):
        parse_size(text)
