import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import (
    BilinearResizer,
    ImageError,
    as_rgb_uint8,
    encode_class_map,
    encode_rgb,
    parse_size,
    read_image,
    resize_bilinear,
    resize_nearest,
    shrink,
    swap_channels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

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
        (np.zeros((6, 4), np.uint8), r"of NV12: .*YUV2RGB_NV12\), of I420: .*YUV2RGB_I420"),
        (np.zeros((4, 6, 2), np.uint8), r"of YUYV: .*COLOR_YUV2RGB_YUY2"),
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


@pytest.fixture(params=["opencv", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test here runs with each library."""
    if request.param == "pillow":
        monkeypatch.setattr(image, "opencv", lambda: None)
    return str(request.param)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.usefixtures("decoder")
class TestReading:
    def test_a_png_comes_as_rgb(self, tmp_path: Path) -> None:
        image = noise()
        path = save(tmp_path / "a.png", Image.fromarray(image))
        assert np.array_equal(read_image(path), image)

    def test_a_grey_picture_gets_three_equal_channels(self, tmp_path: Path) -> None:
        grey = noise()[..., 0]
        path = save(tmp_path / "grey.png", Image.fromarray(grey))
        assert np.array_equal(read_image(path), np.stack([grey] * 3, axis=-1))

    def test_alpha_is_dropped(self, tmp_path: Path) -> None:
        rgba = np.dstack([noise(), np.full((32, 48), 255, np.uint8)])
        path = save(tmp_path / "rgba.png", Image.fromarray(rgba))
        assert np.array_equal(read_image(path), rgba[..., :3])

    @pytest.mark.parametrize("alpha", [0, 100, 255])
    @pytest.mark.parametrize(("order", "big_tiff"), [(b"II", False), (b"II", True), (b"MM", False)])
    def test_alpha_darkens_no_tiff(
        self,
        order: bytes,
        big_tiff: bool,
        alpha: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        mode, _, *layout = TiffImagePlugin.SAVE_INFO["RGBA"]
        monkeypatch.setitem(TiffImagePlugin.SAVE_INFO, "RGBA", (mode, order, *layout))
        rgba = np.dstack([noise(), np.full((32, 48), alpha, np.uint8)])
        path = save(tmp_path / "rgba.tif", Image.fromarray(rgba), big_tiff=big_tiff)
        assert path.read_bytes().startswith(order)
        assert np.array_equal(read_image(path), rgba[..., :3])

    def test_sixteen_bits_are_scaled_to_eight(self, tmp_path: Path) -> None:
        deep = (noise()[..., 0].astype(np.uint16) << 8) + 128
        path = tmp_path / "deep.png"
        assert cv2.imwrite(str(path), deep)
        found = read_image(path)[..., 0].astype(int)
        assert np.abs(found - (deep >> 8)).max() <= 1

    def test_a_palette_picture_shows_its_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(noise()).quantize(16)
        path = save(tmp_path / "palette.png", image)
        assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("white", [1, 127, 255, 1023, 4095, 65535])
    @pytest.mark.parametrize("kind", [2, 3, 5, 6])
    def test_a_netpbm_picture_is_as_bright_as_its_white_says(
        self, kind: int, white: int, tmp_path: Path
    ) -> None:
        image = noise() if kind in (3, 6) else noise()[..., :1]
        stored = np.rint(image * (white / 255)).astype(">u2" if white > 255 else np.uint8)
        text = " ".join(map(str, stored.ravel())) + "\n"
        body = text.encode() if kind < 5 else stored.tobytes()
        path = tmp_path / "a.ppm"
        path.write_bytes(b"P%d # a camera's\r48 # by\n 32\n0%d\n" % (kind, white) + body)
        expected = stored.astype(float) * (255 / white)
        assert np.abs(read_image(path) - expected).max() <= 1.5  # >> 8 and rounding

    def test_cmyk_is_converted(self, tmp_path: Path) -> None:
        red = Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK")
        path = save(tmp_path / "cmyk.jpg", red, quality=95)
        r, g, b = read_image(path)[16, 16].astype(int)
        assert r > 200
        assert max(g, b) < 60

    def test_a_rotated_photo_is_turned_upright(self, tmp_path: Path) -> None:
        upright = np.zeros((40, 80, 3), np.uint8)
        upright[:, 40:] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
        stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
        path = save(tmp_path / "turned.jpg", stored, exif=exif, quality=95)
        found = read_image(path)
        assert found.shape == (40, 80, 3)
        assert found[20, 70].min() > 200
        assert found[20, 10].max() < 50

    def test_a_single_pixel_is_a_picture(self, tmp_path: Path) -> None:
        path = save(tmp_path / "dot.png", Image.new("RGB", (1, 1), (1, 2, 3)))
        assert read_image(path).tolist() == [[[1, 2, 3]]]

    def test_names_in_any_script_are_read(self, tmp_path: Path) -> None:
        path = save(tmp_path / "straße-写真.png", Image.fromarray(noise()))
        assert read_image(path).shape == (32, 48, 3)

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 rubbish"])
    def test_a_foreign_file_is_refused_by_name(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "odd.jpg"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"odd\.jpg"):
            read_image(path)

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_a_truncated_picture_is_refused(self, suffix: str, tmp_path: Path) -> None:
        path = save(tmp_path / f"cut.{suffix}", Image.fromarray(noise(200, 200)))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(ImageError, match="ends in the middle"):
            read_image(path)


def test_what_follows_the_end_of_a_picture_is_nobody_s_business(tmp_path: Path) -> None:
    path = save(tmp_path / "motion.jpg", Image.fromarray(noise(48, 64)))
    path.write_bytes(path.read_bytes() + b"\xff\xda" * 9)  # as in the video that phones append
    assert read_image(path).shape == (48, 64, 3)


def test_a_thumbnail_s_end_is_not_the_picture_s(tmp_path: Path) -> None:
    thumbnail = save(tmp_path / "small.jpg", Image.fromarray(noise(8, 8))).read_bytes()
    whole = save(tmp_path / "a.jpg", Image.fromarray(noise(200, 200))).read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[:2] + b"\xff" + segment + whole[2:])  # markers may be filled up
    assert read_image(path).shape == (200, 200, 3)
    path.write_bytes((whole[:2] + segment + whole[2:])[:-40])
    with pytest.raises(ImageError, match="ends in the middle"):
        read_image(path)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png cannot be read: No such file"):
        read_image(tmp_path / "none.png")


def test_without_a_decoder_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "opencv", lambda: None)
    monkeypatch.setattr(image, "_pillow", lambda: None)
    path = save(tmp_path / "a.png", Image.fromarray(noise()))
    with pytest.raises(ImageError, match="pip install opencv-python-headless"):
        read_image(path)


@pytest.mark.slow
def test_a_picture_of_48_megapixels_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8000, 6000), (9, 8, 7)).save(file, "JPEG")
    path = tmp_path / "large.jpg"
    path.write_bytes(file.getvalue())
    assert read_image(path).shape == (6000, 8000, 3)


def test_pictures_are_read_back_by_opencv_as_they_were() -> None:
    image = noise(31, 17)
    decoded = cv2.imdecode(np.frombuffer(encode_rgb(image), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded[..., ::-1], image)


def test_strided_pictures_are_written_right() -> None:
    image = noise(30, 20)[::2, ::-1]
    decoded = cv2.imdecode(np.frombuffer(encode_rgb(image), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded[..., ::-1], image)


def test_class_maps_keep_ids_as_pixels_and_colours_as_palette(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    classes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colors = noise(1, 6)[0]
    path = tmp_path_factory.mktemp("png") / "mask.png"
    path.write_bytes(encode_class_map(classes, colors))
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), classes)
        assert np.array_equal(np.asarray(image.convert("RGB")), colors[classes])


@given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_shrunken_pixel_is_the_mean_of_what_it_covers(
    height: int, width: int, rows: int, columns: int, swap: bool, seed: int
) -> None:
    rows, columns = min(rows, height), min(columns, width)
    frame = noise(height, width, seed)
    finer = frame.repeat(rows, axis=0).repeat(columns, axis=1)  # pixels that divide evenly
    blocks = finer.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))
    found = np.empty((rows, columns, 3), np.uint8)
    with pytest.MonkeyPatch.context() as without:
        without.setattr(image, "opencv", lambda: None)
        shrink(frame, found, swap)
    assert np.abs(found - (blocks[..., ::-1] if swap else blocks)).max() <= 0.501
    by_opencv = np.empty_like(found)
    shrink(frame, by_opencv, swap)
    assert np.abs(found.astype(int) - by_opencv).max() <= 1
