"""Frames of ROS as arrays: every encoding of cameras, and messages that are not what they say."""

from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.ros2_double import CompressedImage, Image
from tests.doubles.tiny_bundle import noise
from tests.runtime.ros2.conftest import HEADER, image_message

HEIGHT, WIDTH = 10, 14
FRAME = noise(HEIGHT, WIDTH)
each_padding = pytest.mark.parametrize("padding", [0, 5])


def rgb_of(images: Any, message: Any) -> Any:
    frame_HW3, order = images.frame_of(message)
    return frame_HW3 if order == "rgb" else frame_HW3[..., ::-1]


@each_padding
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4"])
def test_frames_of_bytes_are_taken_without_a_copy(images: Any, encoding: str, padding: int) -> None:
    pixels = FRAME if encoding.startswith("rgb") else FRAME[..., ::-1]
    if "a" in encoding or encoding.endswith("4"):
        pixels = np.concatenate([pixels, np.full((HEIGHT, WIDTH, 1), 9, np.uint8)], axis=2)
    message = image_message(pixels.reshape(HEIGHT, -1), WIDTH, encoding, padding)
    np.testing.assert_array_equal(rgb_of(images, message), FRAME)
    view = images.frame_of(message)[0]
    assert np.shares_memory(view, np.frombuffer(message.data, np.uint8))


@each_padding
@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16", "mono16", "16UC1"])
def test_of_16_bits_the_upper_8_are_taken_whatever_their_order(
    images: Any, encoding: str, big: int, padding: int
) -> None:
    count = 4 if "a" in encoding else 3 if "16" in encoding[3:] and encoding[0] in "rb" else 1
    pixels = FRAME if encoding.startswith("rgb") or count == 1 else FRAME[..., ::-1]
    pixels = pixels[..., :1] if count == 1 else pixels
    if count == 4:
        pixels = np.concatenate([pixels, pixels[..., :1]], axis=2)
    deep = (pixels.astype(np.uint16) << 8 | 0x5A).astype(">u2" if big else "<u2")
    rows = np.frombuffer(deep.tobytes(), np.uint8).reshape(HEIGHT, -1)
    found = rgb_of(images, image_message(rows, WIDTH, encoding, padding, big))
    expected = FRAME if count > 1 else FRAME[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(found, expected)


@each_padding
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_frames_have_three_equal_channels(images: Any, encoding: str, padding: int) -> None:
    message = image_message(FRAME[..., 0], WIDTH, encoding, padding)
    np.testing.assert_array_equal(rgb_of(images, message), FRAME[..., :1].repeat(3, axis=2))


@each_padding
@pytest.mark.parametrize("has_opencv", [True, False])
@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("yuyv", cv2.COLOR_YUV2RGB_YUYV),
        ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUYV),
        ("uyvy", cv2.COLOR_YUV2RGB_UYVY),
        ("yuv422", cv2.COLOR_YUV2RGB_UYVY),
        ("nv12", cv2.COLOR_YUV2RGB_NV12),
        ("nv21", cv2.COLOR_YUV2RGB_NV21),
    ],
)
def test_yuv_becomes_the_colours_that_opencv_makes_of_it(
    images: Any,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    code: int,
    has_opencv: bool,
    padding: int,
) -> None:
    if not has_opencv:
        monkeypatch.setattr(images, "opencv", lambda: None)
    planar = encoding.startswith("nv")
    shape = (HEIGHT * 3 // 2, WIDTH) if planar else (HEIGHT, WIDTH, 2)
    raw = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    message = image_message(raw.reshape(shape[0], -1), WIDTH, encoding, padding)
    difference = rgb_of(images, message).astype(int) - cv2.cvtColor(raw, code)
    assert abs(difference).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_frames_are_decoded(images: Any, suffix: str) -> None:
    smooth = cv2.resize(FRAME, (64, 48))
    _, content = cv2.imencode(suffix, smooth)
    form = "rgb8; png compressed bgr8" if suffix == ".png" else "bgr8; jpeg compressed bgr8"
    message = CompressedImage(header=HEADER, format=form, data=array("B", content.tobytes()))
    frame_HW3, order = images.decoded(message)
    assert order == "bgr" and frame_HW3.shape == smooth.shape
    assert abs(frame_HW3.astype(int) - smooth).mean() < (1 if suffix == ".png" else 15)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoding": "bayer_rggb8"}, "run image_proc's debayer"),
        ({"encoding": "32FC1"}, "encoding is '32FC1'; expected rgb8, bgr8"),
        ({"encoding": ""}, "encoding is ''; expected"),
        ({"step": 3 * WIDTH - 1}, f"step is {3 * WIDTH - 1} bytes; {WIDTH} pixels of rgb8 take"),
        ({"step": 3 * WIDTH + 1}, f"{3 * WIDTH * HEIGHT} bytes; {HEIGHT} rows of"),
        ({"height": HEIGHT + 1}, f"{HEIGHT + 1} rows of"),
        ({"height": 0}, f"a frame of {WIDTH}x0 pixels"),
        ({"data": array("B")}, "0 bytes"),
        ({"encoding": "yuyv", "width": 13}, "13 pixels wide; yuyv has pairs"),
        ({"encoding": "nv12", "height": 5}, "14x5; nv12 has even sides"),
        ({"encoding": "rgb16"}, "pixels of rgb16 take"),
    ],
)
def test_a_message_that_is_not_what_it_says_is_told_in_one_line(
    images: Any, change: dict[str, Any], told: str
) -> None:
    message = image_message(FRAME.reshape(HEIGHT, -1), WIDTH, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ValueError) as error:
        images.frame_of(message)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_without_opencv_compressed_frames_say_what_to_install(
    images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "opencv", lambda: None)
    message = CompressedImage(header=HEADER, format="jpeg", data=array("B", b"x"))
    with pytest.raises(ValueError, match="apt install python3-opencv"):
        images.decoded(message)


def test_a_step_that_just_fits_is_taken(images: Any) -> None:
    message = image_message(FRAME.reshape(HEIGHT, -1), WIDTH, "rgb8")
    assert message.step == 3 * WIDTH and images.frame_of(message)[0].shape == (HEIGHT, WIDTH, 3)
    message.height = HEIGHT - 1  # more bytes than it says are no harm
    assert images.frame_of(message)[0].shape == (HEIGHT - 1, WIDTH, 3)


@pytest.mark.parametrize(
    ("form", "content", "told"),
    [
        ("jpeg", b"", "0 bytes"),
        ("jpeg", b"not a picture", "13 bytes of 'jpeg' that are no picture"),
        ("16UC1; compressedDepth png", b"x", "which are distances"),
    ],
)
def test_a_compressed_message_without_a_picture_is_told(
    images: Any, form: str, content: bytes, told: str
) -> None:
    message = CompressedImage(header=HEADER, format=form, data=array("B", content))
    with pytest.raises(ValueError) as error:
        images.decoded(message)
    assert told in str(error.value) or (not content and "OpenCV cannot read" in str(error.value))
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    step=st.integers(0, 80),
    size=st.integers(0, 800),
    encoding=st.sampled_from(
        ["rgb8", "bgra8", "mono8", "mono16", "rgba16", "yuyv", "uyvy", "nv12", "nv21", "", "32FC1"]
    ),
    big=st.integers(0, 255),
)
def test_whatever_comes_is_a_frame_or_a_value_error(
    images: Any, height: int, width: int, step: int, size: int, encoding: str, big: int
) -> None:
    message = Image(header=HEADER, height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian, message.data = big, array("B", bytes(size))
    try:
        frame_HW3, order = images.frame_of(message)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert frame_HW3.shape == (height, width, 3) and frame_HW3.dtype == np.uint8
        assert order in ("rgb", "bgr")


@pytest.mark.parametrize(("pixels", "encoding"), [(FRAME[..., 0], "mono8"), (FRAME, "bgr8")])
def test_what_is_published_reads_back(images: Any, pixels: Any, encoding: str) -> None:
    message = Image(header=HEADER, **images.image_fields(pixels, encoding))
    assert (message.height, message.width) == (HEIGHT, WIDTH)
    frame_HW3, _ = images.frame_of(message)
    expected = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(frame_HW3, expected)
