"""What annotation tools and well-known data sets leave on a disk opens as it is, by its path alone.

Each example is made as the tool's documentation says; docs/data.md has a row for each.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fastseg.checkpoint import usage_of_data
from fastseg.data import (
    LOADERS,
    DataError,
    MissingSplitError,
    camvid,
    check_dataset,
    cityscapes,
    open_dataset,
)
from fastseg.data.label_studio import decode_brush
from fastseg.data.loaders import DRAWN, recognise_spec
from fastseg.data.named_files import clean_path

WIDTH, HEIGHT, COUNT = 48, 32, 12
BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)
COLORS = np.array([BLACK, RED, GREEN], np.uint8)
NAMES = ["background", "red", "green"]
DOCS = Path(__file__).parents[3] / "docs" / "data.md"
BOXES = ((6, 4, 18, 14), (24, 12, 42, 28))  # left, top, right, bottom of red and of green
Make = Callable[[Path], Path]


def label_of(number: int) -> np.ndarray:
    """Return the class map of a picture; the red box moves with the number."""
    label_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for class_id, (left, top, right, bottom) in enumerate(boxes_of(number), start=1):
        label_HW[top:bottom, left:right] = class_id
    return label_HW


def boxes_of(number: int) -> tuple[tuple[int, int, int, int], ...]:
    left, top, right, bottom = BOXES[0]
    return (left, top + number % 4, right, bottom + number % 4), BOXES[1]


def image_of(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(0, 40, (HEIGHT, WIDTH, 3), np.uint8)
    return COLORS[label_of(number)] // 2 + noise


def save(path: Path, pixels: np.ndarray, palette: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture = Image.fromarray(pixels, "P")
        picture.putpalette(palette.ravel().tolist())
    picture.save(path)
    return path


def polygon_of(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def polygons_of(number: int) -> Iterator[tuple[str, list[list[float]]]]:
    for name, box in zip(NAMES[1:], boxes_of(number), strict=True):
        yield name, polygon_of(box)


def coco_table(numbers: range, named: Callable[[int], str]) -> dict[str, Any]:
    images = [{"id": n, "file_name": named(n), "width": WIDTH, "height": HEIGHT} for n in numbers]
    annotations = [
        {
            "id": 2 * n + category,
            "image_id": n,
            "category_id": category,
            "segmentation": [np.ravel(points).tolist()],
            "area": 100.0,
            "iscrowd": 0,
        }
        for n in numbers
        for category, (_, points) in enumerate(polygons_of(n), start=1)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES) if n]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred:255,0,0::\ngreen:0,255,0::\n"


def cvat_masks(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"JPEGImages/f{n}.jpg", image_of(n))
        save(root / f"SegmentationClass/f{n}.png", COLORS[label_of(n)])
        save(root / f"SegmentationObject/f{n}.png", COLORS[label_of(n)])
    (root / "labelmap.txt").write_text(LABELMAP)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("\n".join(f"f{n}" for n in range(COUNT)))
    return root


def cvat_coco(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"images/default/f{n}.jpg", image_of(n))
    write_json(
        root / "annotations/instances_default.json", coco_table(range(COUNT), lambda n: f"f{n}.jpg")
    )
    return root


def labelme_json(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"f{n}.jpg", image_of(n))
        shapes = [
            {"label": name, "points": points, "shape_type": "polygon", "flags": {}}
            for name, points in polygons_of(n)
        ]
        data = base64.b64encode((root / f"f{n}.jpg").read_bytes()).decode()
        table = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"f{n}.jpg"}
        sizes = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        write_json(root / f"f{n}.json", table | {"imageData": data} | sizes)
    (root / "labels.txt").write_text("__ignore__\n_background_\nred\ngreen\n")
    return root


def labelme2voc(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"JPEGImages/f{n}.jpg", image_of(n))
        save(root / f"SegmentationClass/f{n}.png", label_of(n), VOC_PALETTE)
        save(root / f"SegmentationClassVisualization/f{n}.jpg", image_of(n))
        (root / "SegmentationClassNpy").mkdir(exist_ok=True)
        np.save(root / f"SegmentationClassNpy/f{n}.npy", label_of(n))
    (root / "class_names.txt").write_text("_background_\nred\ngreen")
    return root


VOC_PALETTE = np.array([BLACK, (128, 0, 0), (0, 128, 0), *[(9, 9, 9)] * 253], np.uint8)


def pascal_voc(root: Path) -> Path:
    folder = root / "VOCdevkit/VOC2012"
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for n in range(COUNT + 3):  # most pictures of VOC have boxes alone
        save(folder / f"JPEGImages/2007_{n:06d}.jpg", image_of(n))
        if n < COUNT:
            save(folder / f"SegmentationClass/2007_{n:06d}.png", label_of(n), VOC_PALETTE)
    names = [f"2007_{n:06d}\n" for n in range(COUNT)]
    (lists / "train.txt").write_text("".join(names[:8]))
    (lists / "val.txt").write_text("".join(names[8:]))
    (lists / "trainval.txt").write_text("".join(names))
    return root


def label_studio_coco(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"images/0a1b2c{n:02d}-f{n}.jpg", image_of(n))
    prefix = "..\\..\\label-studio\\media\\upload\\4\\"
    write_json(
        root / "result.json",
        coco_table(range(COUNT), lambda n: f"{prefix}0a1b2c{n:02d}-f{n}.jpg"),
    )
    return root


def label_studio_brush(root: Path) -> Path:
    tasks = []
    for n in range(COUNT):
        save(root / f"pictures/f{n}.jpg", image_of(n))
        marks = [
            {
                "type": "brushlabels",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": pack_brush(label_of(n) == class_id),
                    "brushlabels": [name],
                },
            }
            for class_id, name in enumerate(NAMES)
            if class_id
        ]
        path = f"/data/upload/1/0a1b2c3d-f{n}.jpg"
        old = {"id": 1, "was_cancelled": True, "result": []}
        tasks.append(
            {"id": n, "data": {"image": path}, "annotations": [{"id": 2, "result": marks}, old]}
        )
    tasks.append({"id": 99, "data": {"image": "/data/upload/1/new.jpg"}, "annotations": []})
    write_json(root / "project-1.json", tasks)
    return root


def pack_brush(mask_HW: np.ndarray, *, literal: bool = False) -> list[int]:
    """Pack a mask as rle-pack does: a run's bit, which of four lengths, its length, its value."""
    values = np.repeat(mask_HW.ravel() * 255, 4)
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in pairwise(edges):
        for place in range(start, end, 1 << 16):
            length = min(end - place, 1 << 16)
            which = next(w for w, size in enumerate((3, 4, 8, 16)) if length <= 1 << size)
            size = (3, 4, 8, 16)[which]
            bits += f"{0 if literal else 1}{which:02b}{length - 1:0{size}b}"
            bits += f"{values[place]:08b}" * (length if literal else 1)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def roboflow_masks(root: Path) -> Path:
    for split, numbers in SPLITS.items():
        folder = root / split
        for n in numbers:
            save(folder / f"f{n}_jpg.rf.0a1b.jpg", image_of(n))
            save(folder / f"f{n}_jpg.rf.0a1b_mask.png", label_of(n))
        (folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, red\n2, green")
    return root


SPLITS = {"train": range(8), "valid": range(8, 10), "test": range(10, COUNT)}


def roboflow_coco(root: Path) -> Path:
    for split, numbers in SPLITS.items():
        for n in numbers:
            save(root / split / f"f{n}.jpg", image_of(n))
        table = coco_table(numbers, lambda n: f"f{n}.jpg")
        write_json(root / split / "_annotations.coco.json", table)
    return root


def ultralytics(root: Path) -> Path:
    for split, numbers in SPLITS.items():
        name = {"valid": "val"}.get(split, split)
        for n in numbers:
            save(root / f"images/{name}/f{n}.jpg", image_of(n))
            lines = [
                f"{index} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in points)
                for index, (_, points) in enumerate(polygons_of(n))
            ]
            file = root / f"labels/{name}/f{n}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines))
    (root / "coco8-seg.yaml").write_text(
        "path: ../datasets/coco8-seg  # root\ntrain: images/train\nval: images/val\n"
        "test: images/test\nnames:\n  0: red\n  1: green\n"
    )
    return root


def kvasir(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"images/cju{n}.jpg", image_of(n))
        mask = Image.fromarray(((label_of(n) > 0) * 255).astype(np.uint8))
        (root / "masks").mkdir(exist_ok=True)
        mask.convert("RGB").save(root / f"masks/cju{n}.jpg", quality=95)
    return root


def carvana(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"train/{n:02d}_01.jpg", image_of(n))
        palette = np.array([BLACK, (255, 255, 255), *[BLACK] * 254], np.uint8)
        save(root / f"train_masks/{n:02d}_01_mask.gif", (label_of(n) > 0).astype(np.uint8), palette)
    return root


def annotated(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"images/{n:03d}_image.png", image_of(n))
        save(root / f"masks/{n:03d}_annotation.png", label_of(n))
    (root / "classes.txt").write_text("background\nred\ngreen\n")
    return root


def mmseg(root: Path) -> Path:
    for split, numbers in {"train": range(8), "val": range(8, COUNT)}.items():
        for n in numbers:
            save(root / f"img_dir/{split}/f{n}.jpg", image_of(n))
            save(root / f"ann_dir/{split}/f{n}_labelTrainIds.png", label_of(n))
    return root


def ade_like(root: Path) -> Path:
    for split, numbers in {"training": range(8), "validation": range(8, COUNT)}.items():
        for n in numbers:
            save(root / f"images/{split}/ADE_{n:08d}.jpg", image_of(n))
            save(root / f"annotations/{split}/ADE_{n:08d}.png", label_of(n))
    (root / "classes.txt").write_text("background\nred\ngreen\n")
    return root


def ade(root: Path) -> Path:
    for split, numbers in {"training": range(8), "validation": range(8, COUNT)}.items():
        for n in numbers:
            save(root / f"images/{split}/ADE_{n:08d}.jpg", image_of(n))
            save(root / f"annotations/{split}/ADE_{n:08d}.png", label_of(n) + 1)
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    rows += [f"{n}\t0.1\t1\t1\t1\t{name}, {name}s" for n, name in enumerate(NAMES, start=1)]
    (root / "objectInfo150.txt").write_text("\n".join(rows))
    return root


def comma10k(root: Path) -> Path:
    colors = np.array([(64, 32, 32), (255, 0, 0), (128, 128, 96)], np.uint8)
    for n in range(20):
        save(root / f"imgs/{n:04d}_0a1b_{n}.png", image_of(n))
        save(root / f"masks/{n:04d}_0a1b_{n}.png", colors[label_of(n)])
    return root


def urbansyn(root: Path) -> Path:
    for n in range(COUNT):
        save(root / f"rgb/rgb_{n:04d}.png", image_of(n))
        save(root / f"ss/ss_{n:04d}.png", np.where(label_of(n) == 2, 19, label_of(n)))
    return root


def cwfid(root: Path) -> Path:
    colors = np.array([BLACK, GREEN, RED], np.uint8)
    for n in range(1, COUNT + 1):
        save(root / f"images/{n:03d}_image.png", image_of(n))
        save(root / f"masks/{n:03d}_mask.png", ((label_of(n) == 0) * 255).astype(np.uint8))
        save(root / f"annotations/{n:03d}_annotation.png", colors[label_of(n)])
        (root / f"annotations/{n:03d}_annotation.yaml").write_text("filename: a\n")
    (root / "train_test_split.yaml").write_text(
        "train: [1, 2, 3, 4, 5, 6, 7, 8]\ntest: [8, 9, 10, 11, 12]\n"
    )
    return root


# Title of the row of docs/data.md -> what is made, its type, how many samples, and whether labels
# are polygons, whose outline may be a pixel off.
EXAMPLES: dict[str, tuple[Make, str, int, bool]] = {
    "CVAT: Segmentation mask 1.1": (cvat_masks, "cvat", COUNT, False),
    "CVAT: COCO 1.0": (cvat_coco, "coco", COUNT, True),
    "LabelMe: its JSON files": (labelme_json, "labelme", COUNT, True),
    "LabelMe: labelme2voc": (labelme2voc, "voc", COUNT, False),
    "Pascal VOC": (pascal_voc, "voc", COUNT, False),
    "Label Studio: COCO": (label_studio_coco, "coco", COUNT, True),
    "Label Studio: JSON": (label_studio_brush, "label-studio", COUNT, False),
    "Roboflow: Semantic Segmentation Masks": (roboflow_masks, "roboflow", COUNT, False),
    "Roboflow: COCO": (roboflow_coco, "coco", COUNT, True),
    "Ultralytics": (ultralytics, "yolo", COUNT, True),
    "Kvasir-SEG": (kvasir, "folder", COUNT, False),
    "Carvana": (carvana, "folder", COUNT, False),
    "pictures and masks with endings": (annotated, "folder", COUNT, False),
    "mmsegmentation": (mmseg, "folder", COUNT, False),
    "folders as ADE20K's": (ade_like, "folder", COUNT, False),
    "ADE20K": (ade, "ade", COUNT, False),
    "comma10k": (comma10k, "comma10k", 20, False),
    "UrbanSyn": (urbansyn, "urbansyn", COUNT, False),
    "CWFID": (cwfid, "cwfid", COUNT, False),
}
each_example = pytest.mark.parametrize("title", EXAMPLES)


def samples_of(spec: str) -> dict[str, Any]:
    """Return the samples of all splits by number, the last one in their name."""
    found = {}
    for split in ("train", "val", "test"):
        try:
            dataset = open_dataset(spec, split)
        except MissingSplitError:
            continue
        for sample in (dataset[index] for index in range(len(dataset))):
            found[sample.name] = sample
    return found


@each_example
def test_an_example_opens_by_its_path_and_holds_what_was_labelled(
    title: str, tmp_path: Path
) -> None:
    make, kind, count, is_outline = EXAMPLES[title]
    root = make(tmp_path / "my data")
    recognised = recognise_spec(str(root))
    assert recognised is not None and recognised.spec == f"{kind}:{root}"
    by_path, by_kind = samples_of(str(root)), samples_of(f"{kind}:{root}")
    assert len(by_path) == len(by_kind) == count
    for name, sample in by_path.items():
        assert (sample.label_HW == by_kind[name].label_HW).all()
        expected = expected_label(title, name)
        wrong = (sample.label_HW != expected).mean()
        assert wrong <= (0.12 if is_outline else 0.005), (name, wrong)


def expected_label(title: str, name: str) -> np.ndarray:
    number = int(NUMBER_IN_NAME.get(title, re.compile(r"(\d+)$")).search(name)[1])  # type: ignore[index]
    label = label_of(number)
    if title == "Label Studio: JSON":  # it has no list: its classes are in the order of their names
        return np.array([0, 2, 1], np.uint8)[label]
    if title in ("Kvasir-SEG", "Carvana"):
        return (label > 0).astype(np.uint8)
    return np.where(label == 2, 255, label).astype(np.uint8) if title == "UrbanSyn" else label


NUMBER_IN_NAME = {
    "Label Studio: JSON": re.compile(r"-f(\d+)$"),
    "Roboflow: Semantic Segmentation Masks": re.compile(r"f(\d+)_"),
    "Carvana": re.compile(r"^(\d+)_"),
}


def test_the_page_has_a_row_for_each_example_with_its_type() -> None:
    section = DOCS.read_text("utf-8").partition("## You have")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| `([\w-]+):PATH` \|", section, re.MULTILINE)
    assert dict(rows) == {title: kind for title, (_, kind, _, _) in EXAMPLES.items()}


@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind not in DRAWN])
def test_weights_may_not_be_sold_where_the_licence_of_their_data_says_so(
    kind: str, tmp_path: Path
) -> None:
    licence = {"camvid": camvid.LICENCE, "cityscapes": cityscapes.LICENCE}.get(kind)
    if licence is None:
        make = next(make for make, of_kind, _, _ in EXAMPLES.values() if of_kind == kind)
        licence = open_dataset(str(make(tmp_path / "d")), "train").licence
    is_restricted = re.search("research|non-commercial", licence) is not None
    assert (usage_of_data(kind) == "research") == is_restricted


@each_example
def test_the_check_of_an_example_names_what_it_recognised(title: str, tmp_path: Path) -> None:
    make, kind, _, _ = EXAMPLES[title]
    report = check_dataset(str(make(tmp_path / "d")), allow_missing_classes=True)
    assert report.spec.startswith(f"{kind}:")
    assert not report.problems
    assert f"recognised as {kind}:" in report.recognised


@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.booleans())
def test_any_brush_mask_survives_its_run_lengths(mask_HW: np.ndarray, literal: bool) -> None:
    height, width = mask_HW.shape
    packed = pack_brush(mask_HW, literal=literal)
    assert (decode_brush(packed, width, height) == mask_HW).all()


@given(st.lists(st.integers(-1, 256), max_size=40) | st.text(max_size=5), st.integers(1, 5))
def test_anything_is_a_brush_mask_of_the_size_or_refused(numbers: Any, side: int) -> None:
    try:
        mask = decode_brush(numbers, side, side)
    except ValueError:
        return
    assert mask.shape == (side, side)


@given(st.text(max_size=40) | st.just("../../etc/passwd") | st.just("C:\\a\\..\\b.jpg"))
def test_what_an_annotation_names_never_leads_out_of_its_folder(named: str) -> None:
    path = Path("/data") / clean_path(named)
    assert path.is_relative_to("/data") and ".." not in path.parts


def test_a_picture_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    save(tmp_path / "secret.jpg", image_of(0))
    table = coco_table(range(1), lambda _: "../secret.jpg")
    write_json(tmp_path / "d/instances.json", table)
    with pytest.raises(DataError, match=r"no such image"):
        open_dataset(str(tmp_path / "d"), "train")


def test_what_nobody_recognises_is_told_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"it holds notes\.txt\. Write KIND:PATH with one of ade"):
        open_dataset(str(tmp_path), "train")


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@pytest.mark.parametrize(
    "title", ["LabelMe: its JSON files", "Label Studio: JSON", "mmsegmentation"]
)
def test_a_folder_or_a_dangling_link_beside_the_data_hinders_no_other(
    title: str, suffix: str, tmp_path: Path
) -> None:
    make, kind, count, _ = EXAMPLES[title]
    root = make(tmp_path / "d")
    (root / f"meta{suffix}").mkdir()
    assert len(samples_of(str(root))) == count
    (root / f"gone{suffix}").symlink_to("/nowhere")
    if (kind, suffix) == ("labelme", ".json"):  # whose annotations all of them are
        with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
            samples_of(str(root))
    else:
        assert len(samples_of(str(root))) == count


def test_a_wrong_kind_is_refused_with_what_to_write(tmp_path: Path) -> None:
    root = cvat_masks(tmp_path / "d")
    with pytest.raises(
        DataError, match=rf"looks like CVAT's segmentation masks: write cvat:{root}"
    ):
        open_dataset(f"coco:{root}", "train")


def test_masks_of_a_turned_picture_are_turned_with_it_without_a_list_too(tmp_path: Path) -> None:
    root = kvasir(tmp_path / "d")
    upright = {name: s.image_HW3.shape[:2] for name, s in samples_of(str(root)).items()}
    for file in (root / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6  # turn clockwise to view
        with Image.open(file) as picture:
            picture.convert("RGB").save(file, exif=exif)
    for name, sample in samples_of(str(root)).items():
        assert sample.label_HW.shape == sample.image_HW3.shape[:2] == upright[name][::-1]


@pytest.mark.parametrize(
    ("title", "one", "other"),
    [
        ("Pascal VOC", "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/training.txt"),
        ("Roboflow: Semantic Segmentation Masks", "valid", "val"),
    ],
)
def test_two_lists_or_folders_of_one_split_are_refused(
    title: str, one: str, other: str, tmp_path: Path
) -> None:
    root = EXAMPLES[title][0](tmp_path / "d")
    (found,) = tmp_path.rglob(one)
    copy = shutil.copytree if found.is_dir() else shutil.copyfile
    copy(found, found.with_name(Path(other).name))
    names = sorted((found.name, Path(other).name))
    with pytest.raises(DataError, match=rf"both {names[0]}/? and {names[1]}/? are there for one"):
        open_dataset(str(root), "train")


@pytest.mark.parametrize("numbered_anew", [True, False])
def test_a_palette_of_voc_s_colours_is_read_by_them(numbered_anew: bool, tmp_path: Path) -> None:
    root = pascal_voc(tmp_path)
    colors = np.array([(0, 128, 0), BLACK, (128, 0, 0)] if numbered_anew else VOC_PALETTE)
    stored = np.array([1, 2, 0] if numbered_anew else [0, 1, 2], np.uint8)
    for file in root.glob("VOCdevkit/VOC2012/SegmentationClass/*.png"):
        save(file, stored[label_of(int(file.stem[-6:]))], colors)
    for name, sample in samples_of(f"voc:{root}").items():
        assert (sample.label_HW == label_of(int(name[-6:]))).all()


def test_palettes_mean_nothing_where_a_kind_s_numbers_are_fixed(tmp_path: Path) -> None:
    root = ade(tmp_path)
    for place, file in enumerate(sorted(root.glob("annotations/*/*.png"))):
        palette = np.random.default_rng(place).integers(0, 256, (4, 3), np.uint8)
        save(file, label_of(int(file.stem[-8:])) + 1, palette)
    for name, sample in samples_of(f"ade:{root}").items():
        assert (sample.label_HW == label_of(int(name[-8:]))).all()


def test_two_folders_of_masks_are_asked_about(tmp_path: Path) -> None:
    root = kvasir(tmp_path / "d")
    save(root / "annotations/cju0.png", label_of(0))
    with pytest.raises(DataError, match=r"has annotations/ and masks/; which of them"):
        open_dataset(f"folder:{root}", "train")


def test_masks_of_many_values_need_a_list_of_classes(tmp_path: Path) -> None:
    root = annotated(tmp_path / "d")
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"store 0, 1, 2\. Write .*classes\.txt with a line 'value"):
        open_dataset(str(root), "train")


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (257, "masks store 0, 257, 514, values of 16 bits: divide them by 257, and save it with 8"),
        (1000, "values of 16 bits: renumber them to 0 to 254, and save it with 8 bits"),
    ],
)
def test_masks_of_16_bits_without_a_list_say_how_to_save_them(
    factor: int, message: str, tmp_path: Path
) -> None:
    kvasir(tmp_path)
    for n, mask in enumerate(sorted((tmp_path / "masks").iterdir())):
        mask.unlink()
        save(mask.with_suffix(".png"), label_of(n).astype(np.uint16) * factor)
    with pytest.raises(DataError, match=message):
        open_dataset(f"folder:{tmp_path}", "train")


def test_jpegs_of_more_than_two_values_are_refused(tmp_path: Path) -> None:
    root = kvasir(tmp_path / "d")
    for file in (root / "masks").iterdir():
        save(file, np.full((HEIGHT, WIDTH), 120, np.uint8))
    with pytest.raises(DataError, match="JPEG, which changes class ids"):
        open_dataset(str(root), "train")


def test_a_large_yaml_and_a_large_json_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ultralytics(tmp_path / "y")
    with (root / "coco8-seg.yaml").open("a") as file:
        file.write("#" * (1 << 20))
    with pytest.raises(DataError, match="at most"):
        open_dataset(f"yolo:{root / 'coco8-seg.yaml'}", "train")
    monkeypatch.setattr("fastseg.data.labelme._MAX_BYTES", 1000)
    with pytest.raises(DataError, match="at most 1000 are read"):
        open_dataset(f"labelme:{labelme_json(tmp_path / 'l')}", "train")


OWN = """
import numpy as np

class Samples:
    classes = ["sky", "road"]
    def __len__(self):
        return 3
    def __getitem__(self, index):
        if index == 1:
            return np.zeros((3, 8, 8), np.float32), np.zeros((8, 8), int)
        if index == 2:
            return np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 7)
        return np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)

def mine(split):
    return None if split == "test" else Samples()

def broken(split):
    raise KeyError("no such thing")
"""


def test_a_data_set_of_one_s_own_is_named_by_its_factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_samples.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = open_dataset("own_samples:mine", "train")
    assert [info.name for info in dataset.classes] == ["sky", "road"]
    assert (dataset[0].label_HW == 1).all() and dataset[0].label_HW.dtype == np.uint8
    with pytest.raises(DataError, match=r"expected \(H, W, 3\) uint8 RGB, not normalised"):
        dataset[1]
    with pytest.raises(DataError, match=r"label holds \[7\]; expected 0 to 1, or 255"):
        dataset[2]
    with pytest.raises(MissingSplitError):
        open_dataset("own_samples:mine", "test")
    with pytest.raises(DataError, match=r"own_samples:broken: KeyError: .*own_samples\.py:\d+"):
        open_dataset("own_samples:broken", "train")


def test_samples_of_one_s_own_that_share_a_buffer_stay_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = """
import numpy as np

class Samples:
    classes = ["sky", "road"]
    pixels = np.zeros((8, 8, 3), np.uint8)
    def __len__(self):
        return 3
    def __getitem__(self, index):
        self.pixels[:] = index
        return self.pixels, self.pixels[..., 0] % 2

def mine(split):
    return Samples()
"""
    (tmp_path / "shared_buffer.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = open_dataset("shared_buffer:mine", "train")
    samples = [dataset[number] for number in range(3)]
    assert [sample.image_HW3.mean() for sample in samples] == [0, 1, 2]


@pytest.mark.parametrize("classes", ["2", "None", "'road'", "{0: 'sky'}", "[]", "['a', 'a']"])
def test_classes_of_one_s_own_samples_have_to_be_a_list_of_names(
    classes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = OWN.replace('["sky", "road"]', classes)
    (tmp_path / "unnamed_samples.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "unnamed_samples", raising=False)
    with pytest.raises(DataError, match=rf"classes = {re.escape(classes)}; expected a list of 1"):
        open_dataset("unnamed_samples:mine", "train")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = None.y", r"broken_package\.data:mine: AttributeError: .*__init__\.py:1"),
        ("x = (", r"broken_package\.data:mine: SyntaxError: .*__init__\.py:1"),
        (OWN.replace("return 3", "raise OSError('gone')"), r"len\(\) of train: OSError: gone"),
    ],
)
def test_what_one_s_own_package_raises_is_one_line_with_its_place(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package/__init__.py").write_text(code)
    (tmp_path / "broken_package/data.py").write_text("from broken_package import mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("broken_package", "broken_package.data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(DataError, match=message):
        open_dataset("broken_package.data:mine", "train")


def test_pictures_without_annotations_are_left_out_and_counted(tmp_path: Path) -> None:
    root = labelme_json(tmp_path / "d")
    save(root / "new.jpg", image_of(0))
    (note, *_) = [n for n in open_dataset(str(root), "train").notes if "no JSON" in n]  # type: ignore[attr-defined]
    assert note == "1 pictures have no JSON yet and are left out"


def test_two_jsons_of_labelme_s_that_name_one_picture_are_refused(tmp_path: Path) -> None:
    root = labelme_json(tmp_path / "d")
    copied = json.loads((root / "f0.json").read_text())
    write_json(root / "f1.json", copied)
    message = r"(?s)f0\.json: names the picture f0\.jpg, as f1\.json does\n.*f1\.json: .*f1\.jpg is"
    with pytest.raises(DataError, match=message):
        open_dataset(str(root), "train")


def test_two_images_of_coco_s_that_are_one_file_are_refused(tmp_path: Path) -> None:
    root = cvat_coco(tmp_path)
    file = root / "annotations/instances_default.json"
    table = json.loads(file.read_text())
    for image in table["images"]:  # frames of two cameras, of which one's pictures are there
        image["file_name"] = f"cam{image['id'] % 2}/f{image['id'] // 2}.jpg"
    write_json(file, table)
    with pytest.raises(DataError, match=r"f0\.jpg: is the picture of 2 images of .* 'cam0/f0';"):
        open_dataset(f"coco:{root}", "train")


def test_one_file_of_annotations_may_be_named(tmp_path: Path) -> None:
    file = cvat_coco(tmp_path / "d") / "annotations/instances_default.json"
    assert len(samples_of(str(file))) == len(samples_of(f"coco:{file}")) == COUNT


def test_subsets_of_cvat_are_splits_whatever_their_letters(tmp_path: Path) -> None:
    for subset, numbers in (("Train", range(8)), ("Validation", range(8, COUNT))):
        for n in numbers:
            save(tmp_path / f"images/{subset}/f{n}.jpg", image_of(n))
        table = coco_table(numbers, lambda n: f"f{n}.jpg")
        write_json(tmp_path / f"annotations/instances_{subset}.json", table)
    assert len(open_dataset(str(tmp_path), "train")) == 8
    assert len(open_dataset(str(tmp_path), "val")) == COUNT - 8


def test_labelme_s_other_shapes_are_drawn_and_unknown_ones_named(tmp_path: Path) -> None:
    file = labelme_json(tmp_path / "d") / "f0.json"
    table = json.loads(file.read_text())
    mask = Image.fromarray(np.ones((8, 10), bool))
    mask.save(tmp_path / "mask.png")
    encoded = base64.b64encode((tmp_path / "mask.png").read_bytes()).decode()
    shapes = [
        {"label": "red", "points": [[4, 4], [13, 11]], "shape_type": "mask", "mask": encoded},
        {"label": "green", "points": [[30, 16], [34, 16]], "shape_type": "circle"},
        {"label": "red", "points": [[2, 20], [8, 28]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[40, 4], [44, 8]], "shape_type": "line"},
        {"label": "green", "points": [[24, 26]], "shape_type": "point"},
        {
            "label": "red",
            "points": [[40, 20], [46, 20], [46, 28], [40, 28]],
            "shape_type": "rectangle",
        },
    ]
    write_json(file, table | {"shapes": shapes})
    label = samples_of(str(file.parent))["f0"].label_HW
    assert (label[4:12, 4:14] == 1).all() and label[16, 30] == 2 and label[24, 5] == 1
    assert label[6, 42] == 255 and label[0, 0] == 0
    assert label[26, 24] == 2 and (label[21:28, 41:46] == 1).all()
    write_json(file, table | {"shapes": [shapes[0] | {"shape_type": "spline"}]})
    with pytest.raises(DataError, match=r"f0\.json: shape 1 of f0, 'red': is a spline"):
        samples_of(str(file.parent))


@pytest.mark.parametrize(
    ("kind", "points", "message"),
    [
        ("polygon", [[60, 4], [70, 4], [70, 9]], "shape 1 of f0, 'red': lies outside of the"),
        ("rectangle", [[4, -18], [9, -8]], "lies outside of the picture of 48x32"),
        ("circle", [[60, 16], [64, 16]], "lies outside"),
        ("line", [[60, 16], [64, 16]], "lies outside"),
    ],
)
def test_shapes_that_draw_nothing_of_their_picture_are_refused(
    kind: str, points: list[list[float]], message: str, tmp_path: Path
) -> None:
    file = labelme_json(tmp_path / "d") / "f0.json"
    table = json.loads(file.read_text())
    shape = {"label": "red", "points": points, "shape_type": kind}
    write_json(file, table | {"shapes": [shape]})
    with pytest.raises(DataError, match=rf"f0\.json: .*{message}"):
        samples_of(str(file.parent))


@pytest.mark.parametrize(
    ("kind", "points"), [("line", [[51, 5], [51, 20]]), ("point", [[-3, 9]]), ("point", [[0, 0]])]
)
def test_strokes_are_judged_by_their_width_and_are_no_fractions(
    kind: str, points: list[list[float]], tmp_path: Path
) -> None:
    file = labelme_json(tmp_path / "d") / "f0.json"
    table = json.loads(file.read_text())
    shape = {"label": "red", "points": points, "shape_type": kind}
    write_json(file, table | {"shapes": [shape]})
    assert (samples_of(str(file.parent))["f0"].label_HW == 1).any()


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", [[0.1, 0.1], [0.9, 0.1], [0.9, 1.002]]),
        ("rectangle", [[0.1, 0.1], [0.9, 0.9]]),
    ],
)
def test_shapes_in_fractions_are_refused_if_all_of_the_split_are(
    kind: str, points: list[list[float]], tmp_path: Path
) -> None:
    root = labelme_json(tmp_path / "d")
    *others, last = sorted(root.glob("*.json"))
    shapes = [{"label": name, "points": points, "shape_type": kind} for name in NAMES[1:]]
    for file in others:
        write_json(file, json.loads(file.read_text()) | {"shapes": shapes})
    open_dataset(f"labelme:{root}", "train")
    write_json(last, json.loads(last.read_text()) | {"shapes": shapes})
    with pytest.raises(DataError, match="outlines lie within 0 to 1, .*write them in pixels"):
        open_dataset(f"labelme:{root}", "train")


def test_spaces_around_a_label_are_no_class_of_their_own_and_capitals_are_refused(
    tmp_path: Path,
) -> None:
    root = labelme_json(tmp_path / "d")
    table = json.loads((root / "f0.json").read_text())
    table["shapes"][0]["label"] = "red "
    write_json(root / "f0.json", table)
    assert [info.name for info in open_dataset(f"labelme:{root}", "train").classes] == NAMES
    assert (samples_of(f"labelme:{root}")["f0"].label_HW == label_of(0)).mean() > 0.9
    table["shapes"][0]["label"] = "Red"
    write_json(root / "f0.json", table)
    with pytest.raises(DataError, match="both classes 'red' and 'Red', which differ by capital"):
        open_dataset(f"labelme:{root}", "train")
    (root / "labels.txt").write_text("green\nred\nRed\n")
    listed = open_dataset(f"labelme:{root}", "train").classes
    assert [info.name for info in listed] == ["background", "green", "red", "Red"]
    table["shapes"][0]["label"] = "RED"
    write_json(root / "f0.json", table)
    with pytest.raises(DataError, match="both classes 'red' and 'RED'"):
        open_dataset(f"labelme:{root}", "train")


def test_a_list_of_a_split_names_pictures_whether_a_mac_wrote_them_or_not(tmp_path: Path) -> None:
    root = pascal_voc(tmp_path)
    folder = root / "VOCdevkit/VOC2012"
    for number, file in enumerate(sorted(folder.glob("*/*[0-9].[jp][pn]g"))):
        name = file.stem.replace("2007", "bäume")
        file.rename(file.with_stem(unicodedata.normalize("NFD" if number % 2 else "NFC", name)))
    for file in folder.glob("ImageSets/*/*.txt"):
        file.write_text(file.read_text().replace("2007", "bäume"), "utf-8")
    assert [len(open_dataset(f"voc:{root}", split)) for split in ("train", "val")] == [8, COUNT - 8]


def test_labels_that_are_alike_when_capital_are_two_classes(tmp_path: Path) -> None:
    root = labelme_json(tmp_path / "d")
    table = json.loads((root / "f0.json").read_text())
    table["shapes"] += [table["shapes"][0] | {"label": label} for label in ("Masse", "Maße")]
    write_json(root / "f0.json", table)
    assert len(open_dataset(f"labelme:{root}", "train").classes) == len(NAMES) + 2


def test_shapes_of_labelme_and_label_studio_that_are_left_out_leave_their_boxes_ignored(
    tmp_path: Path,
) -> None:
    (left, top, right, bottom), _ = boxes_of(0)
    of_labelme = labelme_json(tmp_path / "a") / "f0.json"
    table = json.loads(of_labelme.read_text())
    table["shapes"][0] |= {"shape_type": "spline"}
    write_json(of_labelme, table)
    of_studio = label_studio_brush(tmp_path / "b") / "project-1.json"
    tasks = json.loads(of_studio.read_text())
    line = 100 * np.array([(left, top), (right, bottom)]) / (WIDTH, HEIGHT)
    broken = {"points": line.tolist(), "polygonlabels": ["red"]}
    tasks[0]["annotations"][0]["result"][0] |= {"value": broken}
    write_json(of_studio, tasks)
    for root in (tmp_path / "a", tmp_path / "b"):
        found = samples_of(f"{root}?skip-broken=0.2")
        (label_HW,) = (sample.label_HW for name, sample in found.items() if name.endswith("f0"))
        assert np.array_equal(label_HW == 255, label_of(0) == 1)


def test_the_ignored_box_of_a_broken_labelme_mask_holds_its_last_pixel(tmp_path: Path) -> None:
    file = labelme_json(tmp_path) / "f0.json"
    mask = {"label": "red", "points": [[4, 5], [13, 11]], "shape_type": "mask", "mask": "broken"}
    write_json(file, json.loads(file.read_text()) | {"shapes": [mask]})
    label_HW = samples_of(f"{tmp_path}?skip-broken=0.2")["f0"].label_HW
    assert (label_HW[5:12, 4:14] == 255).all() and (label_HW == 255).sum() == 7 * 10


def test_a_corner_that_no_float_holds_is_refused_with_its_shape(tmp_path: Path) -> None:
    of_labelme = labelme_json(tmp_path / "a") / "f0.json"
    table = json.loads(of_labelme.read_text())
    table["shapes"][0]["points"][0][0] = 10**400
    write_json(of_labelme, table)
    of_studio = label_studio_brush(tmp_path / "b") / "project-1.json"
    tasks = json.loads(of_studio.read_text())
    huge = {"points": [[10**400, 1], [2, 2], [1, 2]], "polygonlabels": ["red"]}
    tasks[0]["annotations"][0]["result"][0] |= {"value": huge}
    write_json(of_studio, tasks)
    for root in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(DataError, match=r"shape 1 of .*f0, .*points are no list"):
            samples_of(str(root))


def test_label_studio_s_rectangles_are_turned_about_their_first_corner(tmp_path: Path) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())
    mark = tasks[0]["annotations"][0]["result"][0]
    wide = {"width": 16 / WIDTH * 100, "height": 6 / HEIGHT * 100, "rotation": 90}
    mark["value"] = {"x": 50, "y": 25, "rectanglelabels": ["red"], **wide}
    tasks[0]["annotations"][0]["result"] = [mark]
    write_json(file, tasks)
    right, top = WIDTH // 2, HEIGHT // 4
    expected_HW = np.zeros((HEIGHT, WIDTH), bool)
    expected_HW[top : top + 16, right - 6 : right] = True
    found_HW = samples_of(str(file))["0a1b2c3d-f0"].label_HW > 0
    assert found_HW[expected_HW].all()
    assert found_HW.sum() <= 17 * 7, "not more than the outline beside it"
    mark["image_rotation"] = 90
    write_json(file, tasks)
    with pytest.raises(DataError, match="is rotated"):
        samples_of(str(file))
    assert not samples_of(f"{file}?skip-broken=1")["0a1b2c3d-f0"].label_HW.any()


def test_label_studio_s_short_form_and_its_polygons_are_read(tmp_path: Path) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    tasks = []
    for n in range(COUNT):
        marks = [
            {
                **size,
                "points": [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in points],
                "polygonlabels": [name],
            }
            for name, points in polygons_of(n)
        ]
        tasks.append({"image": f"/data/upload/1/0a1b2c3d-f{n}.jpg", "id": n, "tag": marks})
    write_json(file, tasks)
    found = samples_of(str(file.parent))
    assert len(found) == COUNT
    expected = np.array([0, 2, 1], np.uint8)[label_of(3)]
    assert (found["0a1b2c3d-f3"].label_HW != expected).mean() < 0.12


@pytest.mark.parametrize(
    "named",
    [
        "http://localhost:8080/data/local-files/?d=images/{}",
        "/data/local-files/?d=images/{}",
        "/data/upload/1/{}",
    ],
)
def test_label_studio_s_pictures_are_found_however_it_writes_their_place(
    named: str, tmp_path: Path
) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())[:COUNT]
    for n, task in enumerate(tasks):
        picture = file.parent / f"pictures/f{n}.jpg"
        picture = picture.rename(picture.with_name(f"\u0444 {n}.jpg"))
        task["data"] = {"image": named.format(quote(picture.name))}
    write_json(file, tasks)
    found = samples_of(str(file.parent))
    assert len(found) == COUNT


def test_label_studio_s_export_is_known_by_a_head_full_of_run_lengths(tmp_path: Path) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())
    for task in tasks[:COUNT]:  # its own order, and a mask of much detail first
        for mark in task["annotations"][0]["result"]:
            mark["value"] = {"format": "rle", "detail": [0] * 40_000, **mark["value"]}
            mark["value"] = mark.pop("value")
            mark["type"] = mark.pop("type")
    write_json(file, tasks)
    assert len(samples_of(str(file.parent))) == COUNT


def test_a_picture_that_was_submitted_with_nothing_on_it_is_background(tmp_path: Path) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())
    tasks[1]["annotations"] = [{"id": 2, "result": []}]
    tasks[2]["data"] = {"captured": "v1.2 camera", **tasks[2]["data"]}
    write_json(file, tasks)
    found = samples_of(str(file.parent))
    assert len(found) == COUNT
    assert sum((sample.label_HW == 0).all() for sample in found.values()) == 1


def test_marks_that_are_no_masks_are_counted(tmp_path: Path) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())
    tasks[0]["annotations"][0]["result"].append({"type": "keypointlabels", "value": {"x": 1}})
    write_json(file, tasks)
    notes = open_dataset(str(file), "train").notes  # type: ignore[attr-defined]
    assert "1 marks of type keypointlabels are no masks and are left out" in notes
    assert "1 tasks have no annotation and are left out" in notes


@pytest.mark.parametrize("other", ["after.jpg", None])
def test_marks_on_two_pictures_of_a_label_studio_task_are_refused(
    other: str | None, tmp_path: Path
) -> None:
    file = label_studio_brush(tmp_path / "d") / "project-1.json"
    tasks = json.loads(file.read_text())
    for number, task in enumerate(tasks[:COUNT]):
        for mark in task["annotations"][0]["result"]:
            mark["to_name"] = ("before", "after")[number % 2]
        if other:
            task["data"]["after"] = f"/data/upload/1/{other}"
    write_json(file, tasks)
    if other:
        with pytest.raises(DataError, match="on after, but a task has several pictures"):
            open_dataset(str(file), "train")
    else:  # two views of one picture
        assert len(samples_of(str(file))) == COUNT
