from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data import DataError, MissingSplitError, class_frequencies, open_dataset
from fastseg.data.camvid import CLASSES, GROUPS

Writer = Callable[..., Path]
ALL_COLORS = [color for group in GROUPS.values() for color in group.values()]


@pytest.fixture
def colour_mask() -> np.ndarray:
    """Return a mask that holds every colour of the 32 classes and of SegNet's palette."""
    cells = np.array(ALL_COLORS * 12, np.uint8)[: 16 * 24]
    return cells.reshape(16, 24, 3)


def test_index_labels_ignore_void(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    label = np.arange(16 * 24).reshape(16, 24).astype(np.uint8) % 12
    write_picture(tmp_path / "val" / "images" / "a.jpg", picture)
    write_picture(tmp_path / "val" / "labels" / "a.png", label)
    sample = open_dataset(f"camvid:{tmp_path}", "val")[0]
    assert (sample.label_HW == np.where(label == 11, 255, label)).all()


def test_segnet_s_folders_are_read(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    write_picture(tmp_path / "train" / "a.png", picture)
    write_picture(tmp_path / "trainannot" / "a.png", np.full((16, 24), 3, np.uint8))
    sample = open_dataset(f"camvid:{tmp_path}", "train")[0]
    assert (sample.image_HW3 == picture).all()
    assert (sample.label_HW == 3).all()


def test_the_32_colours_are_grouped_to_11_classes(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray, colour_mask: np.ndarray
) -> None:
    write_picture(tmp_path / "test" / "a.png", picture)
    write_picture(tmp_path / "test_labels" / "a_L.png", colour_mask)
    label = open_dataset(f"camvid:{tmp_path}", "test")[0].label_HW
    names = np.array([*(info.name for info in CLASSES), "Void"])[np.minimum(label, 11)]
    for name, group in GROUPS.items():
        for color in group.values():
            assert (names[(colour_mask == color).all(axis=-1)] == name).all()
    assert len(ALL_COLORS) == len(set(ALL_COLORS)) == 33  # 32 classes, Pavement in two palettes


def test_the_authors_folders_need_lists_of_the_splits(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray, colour_mask: np.ndarray
) -> None:
    for name in ("0001TP_006690", "Seq05VD_f00000"):
        write_picture(tmp_path / "701_StillsRaw_full" / f"{name}.png", picture)
        write_picture(tmp_path / "LabeledApproved_full" / f"{name}_L.png", colour_mask)
    with pytest.raises(MissingSplitError, match=r"train\.txt: no such list.*one a line"):
        open_dataset(f"camvid:{tmp_path}", "train")
    line = "/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "train.txt").write_text(line, encoding)
        dataset = open_dataset(f"camvid:{tmp_path}", "train")
        assert [dataset[0].name] == ["0001TP_006690"]
        assert len(dataset) == 1
    (tmp_path / "val.txt").write_text("absent\n")
    with pytest.raises(DataError, match=r"val\.txt: lists absent, no such image"):
        open_dataset(f"camvid:{tmp_path}", "val")


def test_a_palette_is_read_by_camvid_s_colours_and_another_one_by_its_values(
    tmp_path: Path, picture: np.ndarray, write_picture: Writer
) -> None:
    write_picture(tmp_path / "train" / "a.png", picture)
    label = Image.fromarray(np.eye(16, 24, dtype=np.uint8) * 2)
    file = tmp_path / "trainannot" / "a.png"
    file.parent.mkdir()
    car, road, sky = (CLASSES[number].color for number in (8, 3, 0))
    palettes = {(car, road, sky): (8, 0), ((0, 0, 0), (9, 9, 9), car): (0, 2), (sky,) * 9: (0, 2)}
    for palette, expected in palettes.items():
        label.putpalette([value for color in palette for value in color])
        label.save(file)
        label_HW = open_dataset(f"camvid:{tmp_path}", "train")[0].label_HW
        assert (label_HW[0, 1], label_HW[0, 0]) == expected


def test_a_palette_cut_to_black_and_a_colour_that_is_right_is_refused(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    write_picture(tmp_path / "train" / "a.png", picture)
    label, file = Image.fromarray(np.eye(16, 24, dtype=np.uint8)), tmp_path / "trainannot" / "a.png"
    file.parent.mkdir()
    label.putpalette([0, 0, 0, *CLASSES[1].color])
    label.save(file)
    with pytest.raises(DataError, match="black for a value that is another class"):
        open_dataset(f"camvid:{tmp_path}", "train")[0]


def test_an_unknown_colour_is_refused_by_name(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    write_picture(tmp_path / "train" / "a.png", picture)
    write_picture(tmp_path / "train_labels" / "a_L.png", np.full((16, 24, 3), 77, np.uint8))
    with pytest.raises(DataError, match=r"a_L\.png: unknown label colour \[77, 77, 77\]"):
        open_dataset(f"camvid:{tmp_path}", "train")[0]


def test_a_folder_without_camvid_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(f"camvid:{tmp_path / 'absent'}", "train")
    with pytest.raises(DataError, match=r"expected one of train/images \+ train/labels"):
        open_dataset(f"camvid:{tmp_path}", "train")


def test_a_missing_split_is_named(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    write_picture(tmp_path / "train" / "images" / "a.jpg", picture)
    write_picture(tmp_path / "train" / "labels" / "a.png", np.zeros((16, 24), np.uint8))
    with pytest.raises(MissingSplitError, match="no split 'val'"):
        open_dataset(f"camvid:{tmp_path}", "val")


def test_real_camvid_has_its_published_splits(camvid_path: Path) -> None:
    spec = f"camvid:{camvid_path}"
    counts = {split: len(open_dataset(spec, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
    assert len(open_dataset(spec, "trainval")) == 468


def test_real_camvid_decodes_to_its_published_pixel_counts(camvid_path: Path) -> None:
    counts = class_frequencies(open_dataset(f"camvid:{camvid_path}", "val"), 11)
    expected = [1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531]
    assert counts.tolist() == [*expected, 387010]
