"""fastseg-run --format coco, read back by our own reader of COCO data sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.cli.coco import CocoFile

from fastseg.data import open_dataset
from tests.doubles.fastseg_run import run
from tests.doubles.tiny_bundle import noise, strongest_channel

pytestmark = pytest.mark.usefixtures("own_folder")


def photos(*names: str) -> None:
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode_rgb(noise(seed=seed)))


def test_annotations_of_a_folder_are_a_data_set_with_the_very_class_maps(
    bundle_path: Path,
) -> None:
    photos("set/val/a.png", "set/val/b.png")
    out = "set/annotations/instances_val.json"
    assert run(bundle_path, "set/val", "--format", "coco", "-o", out) == 0
    assert sorted(str(path) for path in Path("set").rglob("*.*")) == [
        out, "set/val/a.png", "set/val/b.png",
    ]  # fmt: skip
    dataset = open_dataset("coco:set", "val")
    assert [sample.name for sample in dataset] == ["a", "b"]
    for seed, sample in enumerate(dataset):
        expected = strongest_channel(noise(seed=seed)) + 1  # 0 is the reader's background
        np.testing.assert_array_equal(sample.label_HW, expected)


def test_a_folder_is_named_and_overlays_are_written_where_they_are_asked_for(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos("x/1.png", "y/1.png")
    assert run(bundle_path, "x", "y/1.png", "--format", "coco", "--save", "both", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["mask"] for entry in document["inputs"]] == ["segmented/annotations.json"] * 2
    assert len(list(Path("segmented").glob("*.overlay.png"))) == 2
    table: Any = json.loads(Path("segmented/annotations.json").read_text())
    assert [image["file_name"] for image in table["images"]] == ["x/1.png", "y/1.png"]
    assert table["categories"][0]["id"] == 1
    first = table["annotations"][0]
    assert first["area"] >= table["annotations"][1]["area"]
    assert set(first) == {
        "id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd",
    }  # fmt: skip


def test_a_picture_that_fails_does_not_cost_the_annotations_of_the_others(
    bundle_path: Path,
) -> None:
    photos("p/a.png", "p/c.png")
    Path("p/b.png").write_bytes(b"no picture")
    assert run(bundle_path, "p", "--format", "coco", "-o", "out.json") == 1
    images = json.loads(Path("out.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "c.png"]


def test_the_frames_of_a_video_are_named_as_ffmpeg_would_unpack_them(bundle_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for seed in range(3):
        writer.write(noise(48, 64, seed))
    writer.release()
    assert run(bundle_path, "drive.mp4", "--format", "coco", "-o", "out") == 0
    images = json.loads(Path("out/annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [
        f"drive.mp4/{number:06d}.png" for number in (1, 2, 3)
    ]


def test_numbered_pictures_keep_their_names(bundle_path: Path) -> None:
    pytest.importorskip("cv2")
    photos("drive/000017.png", "drive/000018.png", "drive/000030.png", "b.png")
    assert run(bundle_path, "drive/%06d.png@10", "b.png", "--format", "coco", "-o", "out") == 0
    images = json.loads(Path("out/annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [
        "drive/000017.png", "drive/000018.png", "drive/000030.png", "b.png",
    ]  # fmt: skip


def test_a_camera_is_refused_before_anything_runs(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "camera:0", "--format", "coco") == 2
    assert "record the camera first" in capsys.readouterr().err


def test_a_run_that_comes_to_no_picture_keeps_the_annotations_that_are_there(
    bundle_path: Path,
) -> None:
    photos("x/1.png")
    assert run(bundle_path, "x", "--format", "coco") == 0
    kept = Path("segmented/annotations.json").read_bytes()
    Path("x/1.png").write_bytes(b"damaged")
    assert run(bundle_path, "x", "--format", "coco", "--overwrite") == 1
    assert Path("segmented/annotations.json").read_bytes() == kept


def test_inputs_on_two_drives_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: list[str]) -> str:
        raise ValueError("Paths don't have the same drive")  # as ntpath says it

    monkeypatch.setattr("os.path.commonpath", refuse)
    with pytest.raises(ValueError, match="needs all inputs on one drive"):
        CocoFile(Path("a.json"), (), ["C:/a.png", "D:/b.png"])
