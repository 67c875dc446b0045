import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime.arrays import image_files
from fastseg_runtime.arrays.image_files import ImageError, encode_class_map, encode_rgb, read_image
from PIL import Image

from tests.doubles.tiny_bundle import noise

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["opencv", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test here runs with each library."""
    if request.param == "pillow":
        monkeypatch.setattr(image_files, "opencv", lambda: None)
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


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png cannot be read: No such file"):
        read_image(tmp_path / "none.png")


def test_without_a_decoder_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "opencv", lambda: None)
    monkeypatch.setattr(image_files, "_pillow", lambda: None)
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
