import cv2
import numpy as np
import pytest
from fastseg_runtime.png import encode_class_map, encode_rgb
from PIL import Image

from tests.doubles.tiny_bundle import noise


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
