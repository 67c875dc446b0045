from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastseg_runtime.arrays.image import encode_class_map
from fastseg_runtime.arrays.image import read_image as of_runtime
from hypothesis import given
from hypothesis import strategies as st

from fastseg.data import DataError
from fastseg.data.image_file import read_image, read_label_file, read_picture, turn

PIL = pytest.importorskip("PIL.Image", reason="Pillow writes the odd files of these tests")
INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_pictures_of_every_kind_become_rgb_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    grey = picture[..., 0]
    files = {
        "rgb.png": PIL.fromarray(picture),
        "grey.png": PIL.fromarray(grey),
        "rgba.png": PIL.fromarray(np.dstack((picture, grey))),
        "rgba.tif": PIL.fromarray(np.dstack((picture, grey))),
        "cmyk.jpg": PIL.fromarray(picture).convert("CMYK"),
        "sixteen.png": PIL.fromarray(grey.astype(np.uint16) * 257),
        "one_pixel.png": PIL.fromarray(picture[:1, :1]),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8, name
        assert read.shape == (image.height, image.width, 3), name
    assert (read_image(tmp_path / "rgb.png") == picture).all()
    for name in ("rgba.png", "rgba.tif"):
        assert (read_image(tmp_path / name) == picture).all(), name
    assert (read_image(tmp_path / "sixteen.png")[..., 0] == grey).all()


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "float32", "float64"])
def test_a_tiff_of_any_numbers_is_read_by_its_range(
    kind: str, tmp_path: Path, picture: np.ndarray
) -> None:
    for pixels in (picture[..., 0], picture):
        stored = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
        path = tmp_path / "a.tif"
        path.write_bytes(cv2.imencode(".tif", (100 * stored.astype(kind)))[1].tobytes())
        read = read_picture(path, (0, 25500)).image_HW3
        assert np.array_equal(read, np.broadcast_to(pixels.T, (3, *pixels.T.shape[-2:])).T)


def test_a_ppm_of_12_bits_is_scaled_by_its_white_unless_a_range_is_given(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path, (height, width, _) = tmp_path / "a.ppm", picture.shape
    stored = np.rint(picture * (4095 / 255)).astype(">u2")
    path.write_bytes(b"P6 %d %d 4095\n" % (width, height) + stored.tobytes())
    assert (read_image(path) == picture).all()
    assert (read_image(path) == of_runtime(path)).all()
    assert (read_picture(path, (0, 8190)).image_HW3 == np.rint(stored * (255 / 8190))).all()


def test_a_tiff_of_large_numbers_keeps_their_differences(
    tmp_path: Path, picture: np.ndarray
) -> None:
    grey = picture[..., 0]
    PIL.fromarray(2_000_000_000 + grey.astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="from 2000000000 to 2000000184; say"):
        read_picture(tmp_path / "a.tif")
    read = read_picture(tmp_path / "a.tif", (2e9, 2e9 + 255)).image_HW3
    assert np.array_equal(read[..., 0], grey)
    huge = np.float64([[1e300, -1e300, np.inf, -np.inf, np.nan, 51]])
    (tmp_path / "a.tif").write_bytes(cv2.imencode(".tif", huge)[1].tobytes())
    with np.errstate(all="raise"):
        read = read_picture(tmp_path / "a.tif", (0, 255)).image_HW3
    assert read[..., 0].tolist() == [[255, 0, 255, 0, 0, 51]]


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "YCbCr"])
def test_a_tiff_is_decoded_once(
    mode: str, tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sixteen = PIL.fromarray(picture[..., 0].astype(np.uint16) << 8)
    stored = sixteen if mode == "I;16" else PIL.fromarray(picture).convert(mode)
    stored.save(tmp_path / "a.tif")
    decode, calls = cv2.imdecode, []
    monkeypatch.setattr(cv2, "imdecode", lambda *args: calls.append(args) or decode(*args))
    read = read_image(tmp_path / "a.tif")
    assert len(calls) == 1
    expected = picture[..., :1] if mode == "I;16" else np.array(stored.convert("RGB"))
    assert np.abs(read.astype(int) - expected).max() <= (3 if mode == "YCbCr" else 0)


def test_sixteen_bit_colours_of_a_tiff_that_says_grey_are_not_mixed(
    tmp_path: Path, picture: np.ndarray
) -> None:
    data = cv2.imencode(".tif", picture[..., ::-1].astype(np.uint16) << 8)[1].tobytes()
    colours, greys = (struct.pack("<HHIH", 0x0106, 3, 1, kind) for kind in (2, 1))
    assert colours in data
    (tmp_path / "a.tif").write_bytes(data.replace(colours, greys))
    assert np.array_equal(read_image(tmp_path / "a.tif"), picture)


def test_floats_without_a_range_are_refused_with_that_of_the_finite_ones(tmp_path: Path) -> None:
    stored = np.float32([[np.nan, 2, np.inf], [7, 3, 4]])
    for pixels, said in ((stored, "from 2 to 7; say"), (stored * np.nan, "no finite number")):
        (tmp_path / "a.tif").write_bytes(cv2.imencode(".tif", pixels)[1].tobytes())
        with pytest.raises(DataError, match=said):
            read_picture(tmp_path / "a.tif")


def test_a_camera_s_rotation_mark_turns_the_picture_upright(
    tmp_path: Path, picture: np.ndarray
) -> None:
    exif = PIL.Exif()
    exif[0x0112] = 6  # EXIF orientation: turn clockwise to view
    PIL.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif, quality=98, subsampling=0)
    upright = read_image(tmp_path / "turned.jpg")
    expected = np.rot90(picture, -1)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    "before", [b"", b"\xff", b"\xff\xe2" + struct.pack(">H", 60_000) + bytes(59_998)]
)
def test_the_word_exif_in_a_comment_hides_no_rotation_mark(
    before: bytes, tmp_path: Path, picture: np.ndarray
) -> None:
    exif = PIL.Exif()
    exif[0x0112] = 3
    path = tmp_path / "turned.jpg"
    PIL.fromarray(picture).save(path, exif=exif, quality=98, subsampling=0)
    expected = read_image(path)
    data = path.read_bytes()
    comment = b"\xff\xfe" + struct.pack(">H", 14) + b"EXIF removed"
    (length,) = struct.unpack_from(">H", data, 4)  # of its first segment
    end = 4 + length
    path.write_bytes(data[:2] + 3 * before + data[2:end] + comment + data[end:])
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("name", ["turned.png", "turned.webp", "turned.tif"])
def test_a_rotation_mark_of_png_webp_and_tiff_turns_too(
    name: str, tmp_path: Path, picture: np.ndarray
) -> None:
    exif = PIL.Exif()
    exif[0x0112] = 6
    PIL.fromarray(picture).save(tmp_path / name, exif=exif, lossless=True)
    read = read_picture(tmp_path / name)
    assert np.array_equal(read.image_HW3, np.rot90(picture, -1))
    assert read.orientation == 6


@pytest.mark.parametrize(
    ("kind", "big"),
    [("uint8", 0), ("uint16", 0), (">u2", 0), ("float32", 0), ("uint8", 1), ("uint16", 1)],
)
def test_a_rotation_mark_of_a_grey_tiff_turns_it_once(
    kind: str, big: int, tmp_path: Path, picture: np.ndarray
) -> None:
    stored = PIL.fromarray(picture[..., 0].astype(kind))
    for orientation in range(1, 9):
        stored.save(tmp_path / "a.tif", tiffinfo={0x0112: orientation}, big_tiff=bool(big))
        read = read_picture(tmp_path / "a.tif", (0, 255))
        assert np.array_equal(read.image_HW3[..., 0], turn(picture[..., 0], orientation))
        assert read.orientation == orientation


def test_a_video_behind_a_phone_s_picture_is_nobody_s_business(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "motion.jpg"
    PIL.fromarray(picture).save(path, quality=98)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff\xda" * 9)
    assert read_image(path).shape == picture.shape
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="ends in the middle"):
        read_image(path)


def test_names_in_any_script_can_be_read(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "Straße_通り_улица.png"
    path.write_bytes(_png(picture[..., ::-1]))
    assert (read_image(path) == picture).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_palette_labels_give_their_indices_not_their_colours(tmp_path: Path, bits: int) -> None:
    image = PIL.fromarray(INDICES)
    image.putpalette([value for index in range(12) for value in (200, 7, index * 9)])
    image.save(tmp_path / "label.png", bits=bits)
    assert (read_label_file(tmp_path / "label.png") == INDICES).all()


def test_one_bit_labels_are_zero_and_one(tmp_path: Path) -> None:
    mask = INDICES > 5
    PIL.fromarray(mask).save(tmp_path / "mask.png")
    assert (read_label_file(tmp_path / "mask.png") == mask).all()


def test_colour_masks_come_as_rgb_without_alpha(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.full(picture.shape[:2], 9, np.uint8)
    for name in ("mask.png", "mask.tif"):
        PIL.fromarray(np.dstack((picture, alpha))).save(tmp_path / name)
        assert (read_label_file(tmp_path / name) == picture).all(), name


def test_sixteen_bit_colour_masks_come_as_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    (tmp_path / "mask.png").write_bytes(_png(picture[..., ::-1].astype(np.uint16) * 257))
    assert (read_label_file(tmp_path / "mask.png") == picture).all()


def test_class_ids_in_three_channels_of_16_bits_are_to_be_saved_in_one(tmp_path: Path) -> None:
    ids_HW3 = np.repeat(INDICES[:, :, None], 3, axis=2).astype(np.uint16)
    (tmp_path / "mask.png").write_bytes(_png(ids_HW3))
    with pytest.raises(DataError, match="or with one channel if these are class ids"):
        read_label_file(tmp_path / "mask.png")


def test_bytes_after_a_jpeg_s_end_do_no_harm(tmp_path: Path, picture: np.ndarray) -> None:
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "b.jpg").write_bytes(jpeg + b"what phones append" * 9)
    assert (read_image(tmp_path / "a.jpg") == read_image(tmp_path / "b.jpg")).all()


def test_sixteen_bit_labels_keep_their_values(tmp_path: Path) -> None:
    PIL.fromarray(INDICES.astype(np.uint16) * 300).save(tmp_path / "label.png")
    assert read_label_file(tmp_path / "label.png").max() == 3300


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9\xff",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82",
    ],
)
def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    for read in (read_image, read_label_file):
        with pytest.raises(DataError, match=r"broken\.png: "):
            read(path)


def test_a_picture_of_more_pixels_than_fit_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(encode_class_map(np.zeros((1, 1), np.uint8), np.zeros((1, 3))))
    header = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 12_000, 8, 3, 0, 0, 0)
    data = path.read_bytes()
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    program = (
        "import sys, pathlib\n"
        "from fastseg.data.image_file import read_image as of_data\n"
        "from fastseg_runtime.arrays.image import read_image\n"
        "for read in (of_data, read_image):\n"
        "    try: read(pathlib.Path(sys.argv[1]))\n"
        "    except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    env = {name: value for name, value in os.environ.items() if name[:6] != "OPENCV"}
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        assert "huge.png" in line
        assert "OPENCV_IO_MAX_IMAGE_PIXELS=134217728" in line
    assert len(out.splitlines()) == 2


def test_the_runtime_leaves_the_limit_of_an_apps_own_opencv_alone() -> None:
    program = "import os, fastseg_runtime as f; f.RealtimeSegmentation; print(*os.environ)"
    env = {name: value for name, value in os.environ.items() if name[:6] != "OPENCV"}
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "OPENCV_IO_MAX_IMAGE_PIXELS" not in out


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png: cannot be read"):
        read_image(tmp_path / "absent.png")


@given(st.floats(0, 0.999))
def test_a_truncated_png_never_reads(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    data = _png(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    path = tmp_path_factory.getbasetemp() / "cut.png"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError):
        read_image(path)


@given(st.floats(0.3, 0.98))
def test_a_truncated_jpeg_never_reads(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    path = tmp_path_factory.getbasetemp() / "cut.jpg"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError):
        read_image(path)


@given(st.integers(8, 200), st.integers(1, 255))
def test_a_flipped_byte_in_a_png_is_an_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 4, (20, 30), dtype=np.uint8)
    data = bytearray(_png(pixels))
    data[position] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped.png"
    path.write_bytes(data)
    try:
        read = read_label_file(path)
    except DataError:
        return
    assert (read == pixels).all()


@pytest.mark.parametrize(
    ("hidden", "is_refused"),
    [
        ([(255, 0, 0)], True),
        ([(0, 255, 0), (0, 0, 255)], True),
        ([(0, 0, 0)], False),
        ([(255, 255, 255)], False),
        ([], False),
    ],
)
def test_transparent_pixels_of_a_label_are_refused_where_they_hide_what_was_erased(
    hidden: list[tuple[int, int, int]], is_refused: bool, tmp_path: Path
) -> None:
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[3:] = (255, 0, 0, 255)
    pixels[2] = (0, 0, 0, 255)
    for column, color in enumerate(hidden):
        pixels[:2, column::2, :3] = color
    if not hidden:  # as some write alpha that say nothing by it
        pixels[..., 3] = 0
    PIL.fromarray(pixels).save(tmp_path / "a.png")
    if is_refused:
        with pytest.raises(DataError, match=r"a\.png: .* transparent, .* without alpha"):
            read_label_file(tmp_path / "a.png")
    else:
        assert (read_label_file(tmp_path / "a.png") == pixels[..., :3]).all()
