import dataclasses
import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastseg_runtime.arrays.image import encode_class_map, encode_rgb
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.frames import video
from remote_bench.host.errors import UsageError
from remote_bench.run import frame_files
from remote_bench.run.frame_files import class_ids, frames_zip, read_frames, read_label


@pytest.fixture
def manifest(bundle):
    with open_bundle(bundle) as opened:
        return opened.manifest


def picture(value: int, height: int = 8, width: int = 12) -> bytes:
    return encode_rgb(np.full((height, width, 3), value, np.uint8))


def names_in(archive: io.BytesIO) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def test_pictures_and_the_labels_beside_them_become_arrays(tmp_path, manifest):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.png").write_bytes(picture(number))
    (tmp_path / "labels/1.png").write_bytes(picture(1))
    archive = io.BytesIO()
    assert frames_zip(tmp_path, archive, manifest) == (3, 1)
    assert names_in(archive) == ["0000.npy", "0001.npy", "0001.label.npy", "0002.npy"]
    with zipfile.ZipFile(archive) as file:
        image_HW3 = np.load(io.BytesIO(file.read("0002.npy")), allow_pickle=False)
    assert image_HW3.shape == (8, 12, 3) and (image_HW3 == 2).all()


def test_of_many_pictures_a_hundred_are_taken_evenly(tmp_path, manifest):
    for number in range(250):
        (tmp_path / f"{number:03}.png").write_bytes(picture(number))
    archive = io.BytesIO()
    assert frames_zip(tmp_path, archive, manifest) == (100, 0)
    with zipfile.ZipFile(archive) as file:
        last = np.load(io.BytesIO(file.read("0099.npy")), allow_pickle=False)
    assert last[0, 0, 0] == 247


def test_of_large_pictures_there_are_fewer_but_from_end_to_end(tmp_path, manifest, monkeypatch):
    for number in range(250):
        (tmp_path / f"{number:03}.png").write_bytes(picture(number))
    monkeypatch.setattr(frame_files, "_MOST_BYTES", 10 * 8 * 12 * 3)
    assert brightness(tmp_path, manifest) == [0, 40, 80, 120, 160, 200, 240]


@pytest.fixture
def bare(tmp_path) -> Path:
    """250 pictures that get brighter, in a file that does not say how many they are."""
    jpegs = (
        cv2.imencode(".jpg", np.full((8, 16, 3), n, np.uint8))[1].tobytes() for n in range(250)
    )
    (tmp_path / "drive.mjpeg").write_bytes(b"".join(jpegs))
    return tmp_path / "drive.mjpeg"


def brightness(file: Path, manifest) -> list[int]:
    return [int(frame.mean()) for frame, _ in read_frames(file, manifest)]


def test_of_a_video_that_does_not_say_how_long_it_is_frames_are_taken_evenly(bare, manifest):
    taken = brightness(bare, manifest)
    assert len(taken) == 100
    assert taken == pytest.approx([2.5 * n for n in range(100)], abs=3)


def test_what_the_board_can_hold_of_it_is_from_all_of_it(bare, manifest, monkeypatch):
    monkeypatch.setattr(frame_files, "_MOST_BYTES", 10 * 8 * 16 * 3)
    taken = brightness(bare, manifest)
    assert taken == pytest.approx([32 * n for n in range(8)], abs=3)


def test_it_is_read_once_and_closed(bare, manifest, monkeypatch):
    told = []

    class Watched(video.FrameSource):
        def __init__(self, source):
            told.append("opened")
            super().__init__(source)

        def close(self):
            told.append("closed")
            super().close()

    monkeypatch.setattr(video, "FrameSource", Watched)
    brightness(bare, manifest)
    assert told == ["opened", "closed"]


def test_what_the_board_cannot_hold_is_left_out_but_never_all(tmp_path, manifest, monkeypatch):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    size = 8 * 12 * 3
    for most, frames in ((2 * size, 2), (size - 1, 1)):
        monkeypatch.setattr(frame_files, "_MOST_BYTES", most)
        assert frames_zip(tmp_path, io.BytesIO(), manifest) == (frames, 0)


def test_a_folder_without_a_picture_and_a_picture_that_is_none_are_named(tmp_path, manifest):
    with pytest.raises(UsageError, match="no frame there"):
        frames_zip(tmp_path, io.BytesIO(), manifest)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"--frames: .*a\.png"):
        frames_zip(tmp_path, io.BytesIO(), manifest)


def indexed(ids_HW, palette_P3) -> bytes:
    return encode_class_map(np.array(ids_HW, np.uint8), np.array(palette_P3, np.uint8))


def test_indexed_label_is_read_by_its_colours_or_as_ids_where_its_palette_is_grey(
    tmp_path, manifest
):
    colours = [info.color for info in manifest.classes]
    label = tmp_path / "label.png"
    label.write_bytes(indexed([[1, 0, 2]], [colours[0], colours[1], (0, 0, 0)]))
    assert read_label(label, manifest).tolist() == [[1, 0, 255]]
    label.write_bytes(indexed([[1, 0, 255]], [(n, n, n) for n in range(256)]))
    assert read_label(label, manifest).tolist() == [[1, 0, 255]]


@pytest.mark.parametrize("colour", [(128, 0, 1), (255, 255, 255), (7, 7, 7)])
def test_indexed_label_with_a_colour_of_no_class_is_refused(colour, tmp_path, manifest):
    label = tmp_path / "label.png"
    label.write_bytes(indexed([[0, 1]], [(0, 0, 0), colour]))
    with pytest.raises(UsageError, match=r"label\.png is an indexed PNG that shows"):
        read_label(label, manifest)


def test_label_of_16_bits_is_refused(tmp_path, manifest):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images/0.png").write_bytes(picture(0))
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(tmp_path / "labels/0.png"), np.ones((8, 12), np.uint16))
    with pytest.raises(UsageError, match=r"labels/0\.png has 16 bits a sample"):
        frames_zip(tmp_path, io.BytesIO(), manifest)


def read(label_HW, manifest, file=Path("label.png")):
    label = np.array(label_HW, np.uint8)
    return class_ids(label if label.ndim == 3 else np.stack([label] * 3, 2), manifest, file)


def of_colours(manifest, *colours):
    return dataclasses.replace(
        manifest, classes=tuple(ClassInfo(f"class {n}", rgb) for n, rgb in enumerate(colours))
    )


def test_labels_are_ids_or_colours_and_what_is_neither_is_ignored(manifest):
    count = len(manifest.classes)
    assert read([[0, count - 1, 255]], manifest).tolist() == [[0, count - 1, 255]]
    assert read([[manifest.classes[1].color, (1, 2, 3)]], manifest).tolist() == [[1, 255]]


def test_the_id_after_the_last_is_void_as_camvid_and_urbansyn_have_it(manifest):
    assert read([[0, len(manifest.classes)]], manifest).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("label", "ids"), [([[0, 255]], [[0, 1]]), ([[255]], [[1]]), ([[0]], [[0]]), ([[0, 1]],) * 2]
)
def test_a_mask_of_0_and_255_is_a_white_object_where_the_bundle_has_that_class(
    label, ids, manifest
):
    polyp = of_colours(manifest, (0, 0, 0), (255, 255, 255))
    assert read(label, polyp).tolist() == ids


@pytest.mark.parametrize(("label", "grey"), [([[7, 11, 23]], 23), ([[0, 128]], 128)])
def test_a_grey_that_is_no_id_and_no_colour_of_a_class_is_named(label, grey, manifest):
    streets = of_colours(manifest, *((n, 2, 3) for n in range(19)))
    with pytest.raises(UsageError, match=rf"label\.png holds the grey {grey}; expected ids of"):
        read(label, streets)


def test_255_is_ignored_beside_ids_and_beside_greys_that_are_colours(manifest):
    polyp = of_colours(manifest, (0, 0, 0), (255, 255, 255))
    assert read([[0, 1, 255]], polyp).tolist() == [[0, 1, 255]]
    depths = of_colours(manifest, (50,) * 3, (100,) * 3)
    assert read([[50, 100, 255]], depths).tolist() == [[0, 1, 255]]


def labels_of(tmp_path, manifest, *labels):
    for number, label in enumerate(labels):
        content = np.array(label, np.uint8)
        content = content if content.ndim == 3 else np.stack([content] * 3, 2)
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"{number}.png").write_bytes(encode_rgb(content))
    return [label_HW.tolist() for _, label_HW in frame_files.read_frames(tmp_path, manifest)]


def test_greys_that_can_be_ids_and_colours_are_what_the_other_labels_are(tmp_path, manifest):
    polyp = of_colours(manifest, (0, 0, 0), (255, 255, 255))
    found = labels_of(tmp_path / "voc", polyp, [[0, 255]], [[0, 1]], [[255, 0]])
    assert found == [[[0, 255]], [[0, 1]], [[255, 0]]]
    assert labels_of(tmp_path / "masks", polyp, [[0, 255]], [[0, 0]]) == [[[0, 1]], [[0, 0]]]
    road = of_colours(manifest, (128, 64, 128), (0, 0, 0))
    assert labels_of(tmp_path / "ids", road, [[0, 0]], [[0, 1]]) == [[[0, 0]], [[0, 1]]]
    drawn = [[(128, 64, 128), (0, 0, 0)]]
    assert labels_of(tmp_path / "drawn", road, [[0, 0]], drawn) == [[[1, 1]], [[0, 1]]]
    with pytest.raises(UsageError, match="and no label says which"):
        labels_of(tmp_path / "open", road, [[0, 0]], [[0, 0]])


def test_black_is_what_nobody_labelled_in_labels_that_hold_no_colour_too(tmp_path, manifest):
    sky = of_colours(manifest, (128,) * 3, (128, 0, 0))
    drawn = [[(128, 0, 0), (0, 0, 0)]]
    found = labels_of(tmp_path / "drawn", sky, [[0, 0]], drawn, [[0, 128]])
    assert found == [[[255, 255]], [[1, 255]], [[255, 0]]]
    colourful = of_colours(manifest, (128, 64, 128), (128, 0, 0))
    assert labels_of(tmp_path / "ids", colourful, [[0, 0]], [[0, 0]]) == [[[0, 0]], [[0, 0]]]


def test_a_grey_that_is_one_class_by_its_id_and_another_by_its_colour_is_refused(manifest):
    lane = of_colours(manifest, (255, 255, 255), (0, 0, 0))
    with pytest.raises(UsageError, match="the grey 0, one class by its id and another"):
        read([[0, 255]], lane)


def test_the_same_frames_are_the_same_archive_at_any_time(tmp_path, manifest, monkeypatch):
    (tmp_path / "a.png").write_bytes(picture(7))
    archives = [io.BytesIO(), io.BytesIO()]
    for year, archive in zip((2001, 2031), archives, strict=True):
        monkeypatch.setattr("time.time", lambda year=year: (year - 1970) * 31_557_600.0)
        frames_zip(tmp_path, archive, manifest)
    assert archives[0].getvalue() == archives[1].getvalue()
