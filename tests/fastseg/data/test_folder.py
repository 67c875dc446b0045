from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data import DataError, MissingSplitError, check_dataset, open_dataset
from fastseg.data.folder import hashed_split

Writer = Callable[..., Path]


def test_split_folders_pair_images_with_labels(tmp_path: Path, write_folder: Writer) -> None:
    dataset = open_dataset(f"folder:{write_folder(tmp_path)}", "train")
    assert len(dataset) == 3
    assert [info.name for info in dataset.classes] == ["sky", "road", "tree"]
    sample = dataset[0]
    assert sample.name == "train0"
    assert sample.image_HW3.shape == (16, 24, 3)
    assert sample.label_HW.shape == (16, 24)
    assert [Path(file).parent.name for file in sample.files] == ["images", "labels"]
    assert dataset[-1].name == "train2"
    with pytest.raises(IndexError):
        dataset[3]


def test_splits_may_lie_inside_images_and_labels(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    for kind in ("images", "labels"):
        (root / kind).mkdir()
        (root / "train" / kind).rename(root / kind / "train")
        (root / "val" / kind).rename(root / kind / "val")
    assert len(open_dataset(f"folder:{root}", "train")) == 3
    assert len(open_dataset(f"folder:{root}", "val")) == 1


def test_one_folder_is_split_by_name_for_good(
    tmp_path: Path, write_picture: Writer, picture: np.ndarray
) -> None:
    (tmp_path / "classes.txt").write_text("ground\n")
    label = np.zeros(picture.shape[:2], np.uint8)
    for number in range(60):
        write_picture(tmp_path / "images" / f"{number}.png", picture)
        write_picture(tmp_path / "labels" / f"{number}.png", label)
    splits = {
        split: open_dataset(f"folder:{tmp_path}", split) for split in ("train", "val", "test")
    }
    names = {split: {pair.name for pair in data.pairs} for split, data in splits.items()}  # type: ignore[attr-defined]
    assert sum(map(len, names.values())) == 60
    assert set.union(*names.values()) == {str(number) for number in range(60)}
    assert all(hashed_split(name) == split for split, found in names.items() for name in found)
    assert len(names["train"]) > 40


def test_a_hashed_split_keeps_its_shares() -> None:
    splits = [hashed_split(f"picture_{number}") for number in range(4000)]
    assert 0.77 < splits.count("train") / 4000 < 0.83
    assert 0.08 < splits.count("val") / 4000 < 0.12


def test_colour_masks_are_read_by_the_class_list(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path, {"train": 1})
    mask = np.empty((16, 24, 3), np.uint8)
    mask[:8], mask[8:] = (0, 0, 255), (90, 90, 90)
    write_picture(root / "train" / "labels" / "train0.png", mask)
    label = open_dataset(f"folder:{root}", "train")[0].label_HW
    assert (label[:8] == 0).all()
    assert (label[8:] == 1).all()


def test_files_without_a_partner_are_refused_by_name(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    (root / "train" / "labels" / "train1.png").unlink()
    (root / "train" / "images" / "train2.png").unlink()
    with pytest.raises(DataError) as error:
        open_dataset(f"folder:{root}", "train")
    assert "train1.png: image has no label train1" in str(error.value)
    assert "train2.png: label has no image train2" in str(error.value)


@pytest.mark.parametrize("spec", ["folder:~/d", "~/d", "folder:~/d?image-range=0:255"])
def test_a_path_may_begin_at_home_and_its_list_with_a_capital(
    spec: str, tmp_path: Path, write_folder: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    root = write_folder(tmp_path / "d")
    (root / "classes.txt").rename(root / "Classes.txt")
    dataset = open_dataset(spec, "train")
    assert [info.name for info in dataset.classes] == ["sky", "road", "tree"] and len(dataset) == 3


@pytest.mark.parametrize("labels", ["labels", "masks"])
def test_a_name_that_a_mac_wrote_is_the_one_that_linux_wrote(
    labels: str, tmp_path: Path, write_folder: Writer
) -> None:
    root = write_folder(tmp_path / "d")
    for form, part, new in (("NFC", "images", "images"), ("NFD", "labels", labels)):
        for number in range(3):
            file = root / "train" / part / f"train{number}.png"
            file.rename(file.with_name(unicodedata.normalize(form, f"stück{number}.png")))
        (root / "train" / part).rename(root / "train" / new)
        (root / "val" / part).rename(root / "val" / new)
    dataset = open_dataset(f"folder:{root}", "train")
    assert len(dataset) == 3 and dataset[0].name == unicodedata.normalize("NFC", "stück0")


def test_two_files_of_one_name_are_refused(
    tmp_path: Path, write_folder: Writer, write_picture: Writer, picture: np.ndarray
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "images" / "train0.jpg", picture)
    with pytest.raises(DataError, match="has the same name as train0"):
        open_dataset(f"folder:{root}", "train")


def test_a_label_of_another_size_is_refused_by_name(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "labels" / "train1.png", np.zeros((10, 24), np.uint8))
    dataset = open_dataset(f"folder:{root}", "train")
    with pytest.raises(DataError, match=r"train1\.png: label is 24x10, its image .* is 24x16"):
        dataset[1]


def test_values_out_of_range_are_refused_by_name(
    tmp_path: Path, write_folder: Writer, write_picture: Writer
) -> None:
    root = write_folder(tmp_path)
    write_picture(root / "train" / "labels" / "train1.png", np.full((16, 24), 3, np.uint8))
    with pytest.raises(DataError, match=r"train1\.png: unknown label value 3 \(384 px\)"):
        open_dataset(f"folder:{root}", "train")[1]


def test_a_missing_split_says_which_folders_it_needs(tmp_path: Path, write_folder: Writer) -> None:
    with pytest.raises(MissingSplitError, match="expected test/images and test/labels"):
        open_dataset(f"folder:{write_folder(tmp_path)}", "test")


def test_a_folder_without_images_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\n")
    with pytest.raises(DataError, match="expected images/ and labels/"):
        open_dataset(f"folder:{tmp_path}", "train")


def test_an_empty_split_is_refused(tmp_path: Path, write_folder: Writer) -> None:
    root = write_folder(tmp_path)
    for file in (root / "val").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="split val is empty"):
        open_dataset(f"folder:{root}", "val")


def test_a_hashed_split_begins_and_ends_at_its_percent() -> None:
    seen = {}
    for number in range(1000):
        name = f"picture_{number}"
        percent = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
        seen[percent] = hashed_split(name)
    edges = {percent: seen[percent] for percent in (0, 79, 80, 89, 90, 99)}
    assert edges == {0: "train", 79: "train", 80: "val", 89: "val", 90: "test", 99: "test"}


@pytest.mark.parametrize("kind", ["folder", "yolo", "camvid"])
def test_a_folder_that_is_not_there_is_said_to_be_so(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*: no such folder") as caught:
        open_dataset(f"{kind}:{tmp_path / 'nowhere'}", "train")
    assert "Errno" not in str(caught.value)


def write_masks(root: Path, count: int, mask: Callable[[int], tuple[Image.Image, str]]) -> Path:
    """Write pictures, each with a mask of an object in its upper half, without a class list."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((16, 24, 3), number, np.uint8)).save(
            root / f"images/p{number:02d}.png"
        )
        image, suffix = mask(number)
        image.save(root / f"masks/p{number:02d}{suffix}")
    return root


OBJECT_HW = np.repeat([True, False], 8)[:, None].repeat(24, axis=1)


def in_palette(white_first: bool) -> Image.Image:
    """Return the object in white, as Pillow's quantize() or a drawing program numbers colours."""
    image = Image.fromarray((OBJECT_HW ^ white_first).astype(np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0] if white_first else [0, 0, 0, 255, 255, 255])
    return image


@pytest.mark.parametrize("mixed", [True, False])
def test_a_palette_of_black_and_white_is_read_by_its_colours(mixed: bool, tmp_path: Path) -> None:
    root = write_masks(
        tmp_path, 8, lambda number: (in_palette(not mixed or number % 2 == 0), ".png")
    )
    dataset = open_dataset(f"folder:{root}", "train")
    assert [info.name for info in dataset.classes] == ["background", "foreground"]
    for sample in dataset:
        assert (sample.label_HW == OBJECT_HW).all()


def in_colors(*colors: tuple[int, int, int], object_value: int = 1) -> Image.Image:
    """Return the object as one of two values, which stand for these colours."""
    image = Image.fromarray(np.where(OBJECT_HW, object_value, 1 - object_value).astype(np.uint8))
    image.putpalette([value for color in colors for value in color])
    return image


BLACK, RED = (0, 0, 0), (255, 0, 0)


def test_a_palette_of_black_and_a_colour_is_read_without_a_list(tmp_path: Path) -> None:
    empty = Image.fromarray(np.zeros((16, 24), np.uint8))
    empty.putpalette(BLACK)
    full = [in_colors(BLACK, RED), in_colors(BLACK, RED, BLACK), in_colors(BLACK, (0, 9, 200))]
    masks = [*full, empty]
    write_masks(tmp_path, 9, lambda number: (masks[number % 4], ".png"))
    for sample in open_dataset(f"folder:{tmp_path}", "train"):
        assert (sample.label_HW == (OBJECT_HW & (int(sample.name[1:]) % 4 < 3))).all()


@pytest.mark.parametrize(
    ("red_first", "message"),
    [
        (lambda number: number % 2 == 0, "its palette has .* that of .* one of them"),
        (lambda number: True, "black for the value 1, .* write a classes.txt with the colours"),
    ],
)
def test_palettes_that_turn_foreground_and_background_round_are_refused_without_a_list(
    red_first: Callable[[int], bool], message: str, tmp_path: Path
) -> None:
    def mask(number: int) -> tuple[Image.Image, str]:
        turned = red_first(number)
        colors = (RED, BLACK) if turned else (BLACK, RED)
        return in_colors(*colors, object_value=0 if turned else 1), ".png"

    write_masks(tmp_path, 12, mask)
    report = check_dataset(f"folder:{tmp_path}")
    found = [problem.message for split in report.splits for problem in split.problems]
    assert any(re.search(message, text) for text in found), found
    (tmp_path / "classes.txt").write_text("0 background 0 0 0\n1 object 255 0 0\n")
    assert check_dataset(f"folder:{tmp_path}").ok
    for sample in open_dataset(f"folder:{tmp_path}", "train"):
        assert (sample.label_HW == OBJECT_HW).all()


def test_palettes_of_mmseg_s_folders_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    def mask(number: int) -> tuple[Image.Image, str]:
        image = Image.fromarray(
            np.repeat([0, 1, 2, 255], 4)[:, None].repeat(24, 1).astype(np.uint8)
        )
        image.putpalette(
            [0, 0, 0, *((255, 0, 0, 0, 255, 0) if number % 2 else (0, 255, 0, 255, 0, 0))]
        )
        return image, ".png"

    for split in ("train", "val"):
        write_masks(tmp_path / split, 4, mask)
        for old, new in (("images", "img_dir"), ("masks", "ann_dir")):
            (tmp_path / new).mkdir(exist_ok=True)
            (tmp_path / split / old).rename(tmp_path / new / split)
    train = check_dataset(f"folder:{tmp_path}").splits[0]
    assert any("its palette has" in problem.message for problem in train.problems)


def test_masks_of_two_kinds_are_refused_where_the_list_is_guessed(tmp_path: Path) -> None:
    def mask(number: int) -> tuple[Image.Image, str]:
        return Image.fromarray(OBJECT_HW.astype(np.uint8) * (255 if number % 3 == 1 else 1)), ".png"

    root = write_masks(tmp_path, 60, mask)  # every third, of which twenty are looked at, is 0/1
    for split in ("train", "val", "test"):
        dataset = open_dataset(f"folder:{root}", split)
        odd = [n for n, pair in enumerate(dataset.pairs) if int(pair.name[1:]) % 3 == 1]  # type: ignore[attr-defined]
        with pytest.raises(DataError, match="unknown label value 255"):
            dataset[odd[0]]


@pytest.mark.parametrize(
    ("classes", "object_id"),
    [
        ("0 road 255 255 255\n1 background 0 0 0\n", 0),
        ("0 background 0 0 0\n1 road 255 255 255\n", 1),
        ("0 background\n255 road\n", 1),
        ("255 road\n0 background\n", 1),
        ("road\nbackground\n", None),
    ],
)
def test_jpeg_masks_are_read_by_the_class_list(
    classes: str, object_id: int | None, tmp_path: Path
) -> None:
    root = write_masks(
        tmp_path, 4, lambda _: (Image.fromarray(OBJECT_HW.astype(np.uint8) * 255), ".jpg")
    )
    (root / "classes.txt").write_text(classes)
    if object_id is None:
        with pytest.raises(DataError, match=r"classes\.txt: JPEG masks.*'255 object'"):
            open_dataset(f"folder:{root}", "train")
        return
    label_HW = open_dataset(f"folder:{root}", "train")[0].label_HW
    assert (label_HW == np.where(OBJECT_HW, object_id, 1 - object_id)).all()


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        write_masks(tmp_path / name, 2, lambda _: (in_palette(white_first=False), ".png"))
    with pytest.raises(DataError, match=r"both val.* and valid.* are there for one split"):
        open_dataset(f"folder:{tmp_path}", "val")


def test_a_pair_called_by_nothing_but_a_number_is_a_pair(tmp_path: Path) -> None:
    root = write_masks(
        tmp_path, 1, lambda _: (Image.fromarray(OBJECT_HW.astype(np.uint8) * 255), ".png")
    )
    for folder in ("images", "masks"):
        (root / folder / "p00.png").rename(root / folder / "_1.png")
    assert len(open_dataset(f"folder:{root}", "train")) == 1


@pytest.mark.parametrize("labels", ["labels", "masks"])
@pytest.mark.parametrize(
    ("ours", "theirs", "is_refused"),
    [
        ("sky\nroad\ntree\n", "index,name,r,g,b\n0,sky,1,1,1\n1,Tree,2,2,2\n2,road,3,3,3\n", True),
        ("sky\nroad\ntree\n", "name,r,g,b\nsky,1,1,1\nroad,2,2,2\ntree,3,3,3\n", False),
        ("sky\nroad\ntree\n", "name,r,g,b\nsky,1,1,1\nroad,2,2,2\n", False),
        ("0 sky 1 1 1\n1 road 2 2 2\n2 tree 3 3 3\n", "tree,3,3,3\nroad,2,2,2\nsky,1,1,1\n", False),
        ("sky\nroad\ntree\n", "no list: 3, 4, 5\n", False),
    ],
)
def test_two_lists_of_the_same_classes_in_another_order_are_refused(
    labels: str, ours: str, theirs: str, is_refused: bool, tmp_path: Path, write_folder: Writer
) -> None:
    root = write_folder(tmp_path)
    for split in ("train", "val"):
        (root / split / "labels").rename(root / split / labels)
    (root / "classes.txt").write_text(ours)
    (root / "class_dict.csv").write_text(theirs)
    if is_refused:
        with pytest.raises(DataError, match=r"classes\.txt: .*class_dict\.csv has them in another"):
            open_dataset(f"folder:{root}", "train")
    else:
        assert len(open_dataset(f"folder:{root}", "train")) == 3
