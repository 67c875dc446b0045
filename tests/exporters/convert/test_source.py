"""Images to calibrate and verify on: where they come from, what is taken where none are named."""

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from fastseg_exporters.convert.source import Calibration, RecordedData, recorded_data, unseen_split
from fastseg_exporters.onnx.to_onnx import float_graph
from fastseg_exporters.onnx.to_onnx_int8 import quantize
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, numbered_classes

from fastseg import CheckpointInfo, DeployGraph, FastSegNet
from fastseg.data import AmbiguousDataError, DataError
from fastseg.data.file_dataset import IMAGE_SUFFIXES

CLASSES = numbered_classes(3)


def test_a_folder_of_images_is_spread_over_and_resized(tmp_path: Path) -> None:
    for index in range(10):
        grey = np.full((8, 12, 3), 20 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), grey)
    images = list(Calibration(str(tmp_path), 5).images(InputSpec(6, 4)))
    assert [image.shape for image in images] == [(1, 4, 6, 3)] * 5
    assert [int(image[0, 0, 0, 0]) for image in images] == [0, 40, 80, 120, 160]


def test_colours_arrive_as_rgb(tmp_path: Path) -> None:
    red_in_bgr = np.zeros((8, 8, 3), np.uint8)
    red_in_bgr[..., 2] = 255
    assert cv2.imwrite(str(tmp_path / "red.png"), red_in_bgr)
    (image,) = Calibration(str(tmp_path), 1).images(InputSpec(8, 8))
    assert image[0, 4, 4].tolist() == [255, 0, 0]


def test_a_data_set_gives_its_training_split() -> None:
    spec = "synthetic:size=48x32,train=3,val=2,test=2"
    assert len(list(Calibration(spec, 64).images(InputSpec(48, 32)))) == 3


def test_pictures_of_each_format_that_is_read_are_taken(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        assert cv2.imwrite(str(tmp_path / f"picture{suffix}"), np.zeros((8, 12, 3), np.uint8))
    images = Calibration(str(tmp_path)).images(InputSpec(8, 8))
    assert len(list(images)) == len(IMAGE_SUFFIXES)


def test_what_a_mac_leaves_beside_pictures_is_none_of_them(tmp_path: Path) -> None:
    grey = np.full((8, 12, 3), 20, np.uint8)
    assert cv2.imwrite(str(tmp_path / "a0.png"), grey)
    (tmp_path / "._a0.png").write_bytes(b"Mac OS X")
    (tmp_path / "thumbs.png").mkdir()
    assert len(list(Calibration(str(tmp_path)).images(InputSpec(8, 8)))) == 1


def test_pictures_of_several_folders_are_counted_as_some_may_be_labels(tmp_path: Path) -> None:
    for name in ("camera/a.png", "camera/b.png", "groundtruth_fine/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / name), np.zeros((8, 12, 3), np.uint8))
    said = f"pictures of {tmp_path} in camera (2), groundtruth_fine (1); name one of them"
    assert said in Calibration(str(tmp_path)).note
    for alone in (str(tmp_path / "camera"), "synthetic", None):
        assert Calibration(alone).note == ""


def test_a_folder_without_images_and_a_broken_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        list(Calibration(str(tmp_path)).images(InputSpec(8, 8)))
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png: "):
        list(Calibration(str(tmp_path)).images(InputSpec(8, 8)))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_is_cut_off_is_named(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = cv2.imencode(suffix, noise)[1].tobytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"cut\{suffix}: "):
        list(Calibration(str(tmp_path)).images(InputSpec(8, 8)))


def test_one_odd_image_does_not_cost_the_others_their_resolution() -> None:
    torch.manual_seed(0)
    model = float_graph(DeployGraph(FastSegNet(3, "nano"), 64, 32).eval())
    plain = np.full((1, 32, 64, 3), 132, np.uint8)
    odd = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (1, 32, 64, 3))
    alone, among_others = (
        scales(quantize(model, images, 128.0, 64.0)) for images in ([odd], [*[plain] * 7, odd])
    )
    assert among_others.keys() == alone.keys()
    ratios = [among_others[name] / alone[name] for name in alone]
    assert np.median(ratios) < 0.6


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return the scale of every activation but the image's, which is pinned."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found = {name: values[name] for name in names if values[name].size == 1}
    return {name: float(scale) for name, scale in found.items() if scale != np.float32(1 / 64)}


def test_int8_holds_one_image_at_a_time() -> None:
    torch.manual_seed(0)
    model = float_graph(DeployGraph(FastSegNet(3, "nano"), 64, 32).eval())
    alive: list[int] = []

    def images() -> Iterator[Array]:
        seen: list[weakref.ref[Array]] = []
        for index in range(12):
            image = np.full((1, 32, 64, 3), index, np.uint8)
            seen.append(weakref.ref(image))
            yield image
            del image
            alive.append(sum(reference() is not None for reference in seen))

    quantize(model, images(), 128.0, 64.0)
    assert len(alive) == 12
    assert max(alive) <= 1


def info(data: Any, trained_on: str = "folder train") -> CheckpointInfo:
    training = {} if data is None else {"data": data}
    return CheckpointInfo("nano", CLASSES, training=training, trained_on=trained_on)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """A folder with three classes and one picture in each split."""
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\n")
    for split in ("train", "val", "test"):
        for part, shape in (("images", (8, 8, 3)), ("labels", (8, 8))):
            folder = tmp_path / split / part
            folder.mkdir(parents=True)
            assert cv2.imwrite(str(folder / "0.png"), np.zeros(shape, np.uint8))
    return f"folder:{tmp_path}"


def test_the_data_of_the_training_is_taken_where_it_still_is(dataset: str) -> None:
    found = recorded_data(info(dataset))
    assert found.spec == dataset
    assert "as in the training" in found.note


def test_data_that_are_gone_are_named_and_left(dataset: str) -> None:
    found = recorded_data(info(f"{dataset}/moved"))
    assert found.spec is None
    assert "cannot be used here" in found.note
    assert "moved" in found.note


def test_data_with_other_classes_are_left_too(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    found = recorded_data(info(dataset))
    assert found.spec is None
    assert "has 2 classes, the network 3" in found.note


def test_data_with_the_classes_in_another_order_are_left_too(dataset: str, tmp_path: Path) -> None:
    names = ("road", "sky", "car")
    known = dataclasses.replace(
        info(dataset), classes=tuple(ClassInfo(name, (0, 0, 0)) for name in names)
    )
    for given in (("sky", "road", "car"), ("sky", "road", "vehicle")):
        (tmp_path / "classes.txt").write_text("\n".join(given))
        found = recorded_data(known)
        assert found.spec is None
        assert f"in another order, {', '.join(given)} instead of road, sky, car" in found.note
    (tmp_path / "classes.txt").write_text("street\nsky\ncar\n")  # renamed
    assert recorded_data(known).spec == dataset


def test_a_folder_that_could_be_several_data_sets_is_not_taken_for_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ambiguous(path: str) -> str:
        raise AmbiguousDataError(f"{path}: looks like 2 kinds of data; write one of voc:x")

    monkeypatch.setattr("fastseg_exporters.convert.source.recognise_spec", ambiguous)
    with pytest.raises(DataError, match="looks like 2 kinds"):
        list(Calibration(str(tmp_path), 4).images(InputSpec(48, 32)))


@pytest.mark.parametrize("data", [None, 3, ["camvid"]])
def test_a_checkpoint_that_records_none_is_no_surprise(data: Any) -> None:
    assert recorded_data(info(data)) == RecordedData()


def test_pictures_that_were_trained_on_are_not_verified_on() -> None:
    assert unseen_split("camvid train", "camvid:here") == "val"
    assert unseen_split("camvid trainval", "camvid:here") == "test"
    assert unseen_split("camvid trainval", "folder:elsewhere") == "val"


def test_a_data_set_named_by_its_path_alone_gives_no_labels_to_calibrate_on(tmp_path: Path) -> None:
    for number in range(4):
        for folder, value in (("images", 100), ("masks", 255 * (number % 2))):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = np.full((32, 48) if value != 100 else (32, 48, 3), value, np.uint8)
            if folder == "masks":
                pixels[:8] = 255
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), pixels)
    images = list(Calibration(str(tmp_path), 64).images(InputSpec(48, 32)))
    assert 0 < len(images) < 4
    assert all((image == 100).all() for image in images)
    assert unseen_split("folder trainval", str(tmp_path)) == "test"


def test_data_without_val_are_verified_on_their_test_split(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dark\nbright\n")
    for split in ("train", "test"):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
            pixels = np.zeros((32, 48, 3) if folder == "images" else (32, 48), np.uint8)
            pixels[:8] = 1
            cv2.imwrite(str(tmp_path / split / folder / f"{split}.png"), pixels)
    spec = f"folder:{tmp_path}"
    assert unseen_split("folder train", spec) == "test"
    (tmp_path / "test").rename(tmp_path / "val")
    assert unseen_split("folder train", spec) == "val"
