"""Data sets as people have them, each with what has to become of it: right, or a sentence.

The cases follow public reports on this and on other systems. A case writes a tiny set whose truth
is known: `scene(number)` is the picture whose name ends with that number.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
NAMES = ("background", "red", "green")
LIST = "background\nred\ngreen\n"
COLORED = "0 background 0 0 0\n1 red 255 0 0\n2 green 0 255 0\n"
SPLITS = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}

Array = np.ndarray[Any, Any]
Draw = Callable[[Path, Array, int], None]  # (path without suffix, pixels, number)


def scene(number: int, classes: int = 3) -> tuple[Array, Array]:
    """Return a picture and its class map: a red and a green box on grey."""
    rng = np.random.default_rng(number)
    label_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for class_id in range(1, classes):
        x, y = 24 * (class_id - 1) + rng.integers(0, 12), rng.integers(0, 20)
        label_HW[y : y + 12, x : x + 12] = class_id
    colors = np.array([(90, 90, 90), (220, 40, 40), (40, 220, 40)])
    noise_HW3 = rng.integers(-35, 35, (HEIGHT, WIDTH, 3))
    return (colors[label_HW] + noise_HW3).clip(0, 255).astype(np.uint8), label_HW


def png(path: Path, pixels: Array, _: int) -> None:
    save(Image.fromarray(pixels), path)


def save(image: Image.Image, path: Path, suffix: str = ".png", **options: Any) -> None:
    image.save(path.with_name(path.name + suffix), **options)


def rgb(label_HW: Array) -> Array:
    return np.array(PALETTE, np.uint8)[label_HW]


def of_values(*values: int) -> Draw:
    """Store each class as a value."""
    table = np.array(values, np.uint8)
    return lambda path, label_HW, _: save(Image.fromarray(table[label_HW]), path)


def colored(path: Path, label_HW: Array, _: int) -> None:
    save(Image.fromarray(rgb(label_HW)), path)


def indexed(order: Callable[[int], Iterable[int]], suffix: str = ".png", **options: Any) -> Draw:
    """Store colours in a palette; order(number) are the classes in the order of its entries."""

    def draw(path: Path, label_HW: Array, number: int) -> None:
        classes = list(order(number))
        image = Image.fromarray(np.argsort(classes).astype(np.uint8)[label_HW])
        image.putpalette([value for class_id in classes for value in PALETTE[class_id]])
        save(image, path, suffix, **options)

    return draw


def folder(
    root: Path,
    classes: str | bytes = LIST,
    label: Draw = png,
    image: Draw = png,
    count: int = 3,
    names: tuple[str, str] = ("images", "labels"),
) -> Path:
    """Write a `folder:` set with three splits."""
    for split, numbers in SPLITS.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
        for number in numbers:
            image_HW3, label_HW = scene(number, count)
            image(root / split / names[0] / f"s{number:02d}", image_HW3, number)
            label(root / split / names[1] / f"s{number:02d}", label_HW, number)
    (root / "classes.txt").write_bytes(classes if isinstance(classes, bytes) else classes.encode())
    return root


@dataclass(frozen=True)
class Case:
    """A data set and what has to become of it.

    Attributes:
        name: of the case.
        write: writes it into a folder.
        kind: of data.
        wrong: what --check and the training say why they refuse it; "" where it is right.
        said: what they say and go on.
        classes: their names.
        options: of the data's string, after its "?".
    """

    name: str
    write: Callable[[Path], Any]
    kind: str = "folder"
    wrong: str = ""
    said: str = ""
    classes: tuple[str, ...] = NAMES
    options: str = ""

    def spec(self, root: Path) -> str:
        """Return the data's string of a folder that the case was written into."""
        return f"{self.kind}:{root}" + (f"?{self.options}" if self.options else "")


def case(name: str, wrong: str = "", said: str = "", **written: Any) -> Case:
    """Return a case of a folder; `classes` of the case are those of the list's `count`."""
    names = ("background", "polyp") if written.get("count") == 2 else NAMES
    return Case(name, lambda root: folder(root, **written), "folder", wrong, said, names)


def changed(name: str, change: Callable[[Path], Any], wrong: str = "", said: str = "") -> Case:
    """Return a case of a sound folder of which something is changed."""
    return Case(name, lambda root: change(folder(root)), wrong=wrong, said=said)


# --- labels -----------------------------------------------------------------------------------

TWO = "background\npolyp\n"
MASK = of_values(0, 255)
ASKS_255 = r"4 label files hold nothing but background and 255, .*'0 background' and '255 polyp'"


def _alternating(first: Draw, second: Draw) -> Draw:
    return lambda path, pixels, number: (first, second)[number % 2](path, pixels, number)


def _sixteen(path: Path, label_HW: Array, _: int) -> None:
    stored = (label_HW > 0).astype(np.uint16) * 65535
    cv2.imwrite(f"{path}.png", stored)


def _widened(path: Path, label_HW: Array, _: int) -> None:
    cv2.imwrite(f"{path}.png", label_HW.astype(np.uint16) * 257)


def _wide_colors(factor: int, dtype: Any = np.uint16, suffix: str = ".png") -> Draw:
    def draw(path: Path, label_HW: Array, _: int) -> None:
        cv2.imwrite(f"{path}{suffix}", rgb(label_HW)[:, :, ::-1].astype(dtype) * factor)

    return draw


def _antialiased(path: Path, label_HW: Array, _: int) -> None:
    large = cv2.resize(rgb(label_HW), (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_LINEAR)
    save(Image.fromarray(cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)), path)


def _bits(bits: int) -> Draw:
    return indexed(lambda _: (0, 1, 2), bits=bits)


def _one_bit(path: Path, label_HW: Array, _: int) -> None:
    save(Image.fromarray(label_HW > 0), path)


def _gif_mask(path: Path, label_HW: Array, _: int) -> None:
    save(Image.fromarray((label_HW > 0).astype(np.uint8) * 255), path, ".gif")


def _bilevel(suffix: str) -> Draw:
    return lambda path, label_HW, _: save(Image.fromarray(label_HW > 0), path, suffix)


def _palette_of(*colors: tuple[int, int, int]) -> Draw:
    def draw(path: Path, label_HW: Array, _: int) -> None:
        image = Image.fromarray(label_HW)
        image.putpalette([value for color in colors for value in color])
        save(image, path)

    return draw


VOC = _palette_of((0, 0, 0), (128, 0, 0), (0, 128, 0))
INVERTED = _palette_of((255, 255, 255), (0, 0, 0))
SHUFFLED = indexed(lambda number: np.random.default_rng(100 + number).permutation(3))


def _other_palette_in_val(path: Path, label_HW: Array, number: int) -> None:
    other = _palette_of((0, 0, 0), (0, 128, 0), (128, 0, 0))
    (VOC if number in SPLITS["train"] else other)(path, label_HW, number)


def _blue_first(path: Path, label_HW: Array, _: int) -> None:
    save(Image.fromarray(rgb(label_HW)[:, :, ::-1].copy()), path)


def _jpeg(path: Path, label_HW: Array, _: int) -> None:
    save(Image.fromarray(rgb(label_HW)), path, ".jpg")


LABELS = (
    case("0/255 and names", label=MASK, classes=TWO, count=2, wrong=ASKS_255),
    case(
        "0/255 and indices", label=MASK, classes="0 background\n1 polyp\n", count=2, wrong=ASKS_255
    ),
    case("0/255 and one name", label=MASK, classes="polyp\n", count=2, wrong=ASKS_255),
    case("0/255 as listed", label=MASK, classes="0 background\n255 polyp\n", count=2),
    case("0/255, the object listed", label=MASK, classes="255 polyp\n", count=2, said="told from"),
    case(
        "0/255 by grey colours",
        label=MASK,
        classes="0 background 0 0 0\n1 polyp 255 255 255\n",
        count=2,
    ),
    case(
        "0/128 by grey colours",
        label=of_values(0, 128),
        classes="0 background 0 0 0\n1 polyp 128 128 128\n",
        count=2,
    ),
    case("0/254", label=of_values(0, 254), classes=TWO, count=2, wrong="unknown label value 254"),
    case("0/65535 and names", label=_sixteen, classes=TWO, count=2, wrong=ASKS_255),
    case("0/65535 as listed", label=_sixteen, classes="0 background\n255 polyp\n", count=2),
    case("0/257/514", label=_widened, wrong="unknown label value 257 .*save it with 8 bits"),
    case(
        "0/65535, listed so",
        label=_sixteen,
        classes="0 background\n65535 polyp\n",
        count=2,
        wrong="above 255; if masks store it, .*save it with 8 bits",
    ),
    case("colours of 16 bits", label=_wide_colors(257), classes=COLORED),
    case(
        "colours of 8 bits in 16",
        label=_wide_colors(1),
        classes=COLORED,
        wrong="stores colours as uint16 up to 255, .* save it with 8 bits",
    ),
    case(
        "colours as floats",
        label=_wide_colors(1, np.float32, ".tif"),
        classes=COLORED,
        wrong="stores colours as float32 up to 255, .* save it with 8 bits",
    ),
    case(
        "0/255 in some files, 0/1 in others",
        label=_alternating(MASK, of_values(0, 1)),
        classes=TWO,
        count=2,
        wrong="2 label files hold nothing but background and 255",
    ),
    case(
        "0/255 in some files, 0/1 in others, with colours",
        label=_alternating(MASK, of_values(0, 1)),
        classes="0 background 0 0 0\n1 polyp 255 255 255\n",
        count=2,
        wrong="they cannot both be right",
    ),
    case(
        "255 of three classes",
        label=of_values(0, 1, 255),
        wrong="no pixel of class green in .*, and its labels hold 255; .* write '255 green'",
    ),
    case(
        "255 of three classes, listed",
        label=of_values(0, 1, 255),
        classes="0 background\n1 red\n255 green\n",
    ),
    case(
        "255 is void", label=of_values(0, 1, 2), classes="0 background\n1 red\n2 green\n255 void\n"
    ),
    case("0/1 and one name", label=of_values(0, 1), classes="polyp\n", count=2, said="told from"),
    case(
        "0/1 and one index", label=of_values(0, 1), classes="1 polyp\n", count=2, said="told from"
    ),
    case(
        "one class of value 0",
        label=of_values(0, 1),
        classes="0 polyp\n",
        count=2,
        wrong="nothing to tell it from",
    ),
    case(
        "one class, background",
        label=of_values(0, 0),
        classes="background\n",
        count=2,
        wrong="nothing to tell it from",
    ),
    case(
        "one class and void",
        label=of_values(0, 1),
        classes="void\npolyp\n",
        count=2,
        wrong="nothing to tell it from",
    ),
    case("colours of two, no list of them", label=colored, wrong="'1 road 128 64 128'"),
    case("1 to N", label=of_values(1, 2, 3), wrong="unknown label value 3"),
    case("1 to N, listed", label=of_values(1, 2, 3), classes="1 background\n2 red\n3 green\n"),
    case(
        "1 to N with a class too many",
        label=of_values(1, 2, 3),
        classes="other\nbackground\nred\ngreen\n",
        wrong="no pixel of class other",
    ),
    case(
        "all background", label=of_values(0, 0, 0), wrong="train has no pixel of class red, green"
    ),
    case("all ignored", label=of_values(255, 255, 255), wrong="train: all pixels are ignored"),
    case("colours", label=colored, classes=COLORED),
    case(
        "colours, blue first",
        label=_blue_first,
        classes=COLORED,
        wrong=r"unknown label colour \[0, 0, 255\]",
    ),
    case("antialiased colours", label=_antialiased, classes=COLORED, wrong="unknown label colour"),
    case("palette in order", label=indexed(lambda _: (0, 1, 2)), classes=COLORED),
    case("palette in another order in each file", label=SHUFFLED, classes=COLORED),
    case("palette in another order in all", label=indexed(lambda _: (2, 0, 1)), classes=COLORED),
    case(
        "palettes that differ, no colours listed",
        label=SHUFFLED,
        wrong="its palette has .* that of .* one of them",
    ),
    case(
        "palette of other colours than listed",
        label=VOC,
        classes=COLORED,
        wrong="no colour of the class list",
    ),
    case("palette of VOC, no colours listed", label=VOC),
    case(
        "palettes of train and val differ",
        label=_other_palette_in_val,
        wrong="its palette has 0 128 0 for the value 1",
    ),
    case(
        "palette white and black",
        label=INVERTED,
        classes=TWO,
        count=2,
        wrong="white for the value 0",
    ),
    case("palette of 4 bits", label=_bits(4), classes=COLORED),
    case("palette of 2 bits", label=_bits(2)),
    case("one bit", label=_one_bit, classes=TWO, count=2),
    case("BMP with a palette", label=indexed(lambda _: (1, 2, 0), ".bmp"), classes=COLORED),
    case(
        "BMP with a palette, no colours listed",
        label=indexed(lambda _: (1, 2, 0), ".bmp"),
        wrong="unknown label colour",
    ),
    case("BMP of one bit", label=_bilevel(".bmp"), classes=TWO, count=2, wrong=ASKS_255),
    case("TIFF of one bit", label=_bilevel(".tif"), classes="0 background\n255 polyp\n", count=2),
    case("GIF with a palette", label=indexed(lambda _: (2, 1, 0), ".gif"), classes=COLORED),
    case("GIF mask", label=_gif_mask, classes=TWO, count=2, wrong=ASKS_255),
    case("GIF mask, listed", label=_gif_mask, classes="0 background\n255 polyp\n", count=2),
    case(
        "JPEG labels",
        label=_jpeg,
        classes=COLORED,
        wrong=r"s00\.jpg is there, but of \.jpg \(JPEG and the like change values\)",
    ),
)

# --- class lists ------------------------------------------------------------------------------

LISTS = (
    case(
        "CVAT's labelmap",
        label=colored,
        classes="# label:color_rgb:parts:actions\n"
        "background:0,0,0::\nred:255,0,0::\ngreen:0,255,0::\n",
    ),
    case(
        "class_dict.csv",
        label=colored,
        classes="name,r,g,b\nbackground,0,0,0\nred,255,0,0\ngreen,0,255,0\n",
    ),
    case(
        "Roboflow's _classes.csv", classes="Pixel Value, Class\n0, background\n1, red\n2, green\n"
    ),
    case("a header of ours", label=colored, classes="index name R G B\n" + COLORED),
    case(
        "indices with colons", label=of_values(1, 2, 3), classes="1: background\n2: red\n3: green\n"
    ),
    case(
        "semicolons", label=colored, classes="0;background;0;0;0\n1;red;255;0;0\n2;green;0;255;0\n"
    ),
    case(
        "names with colours",
        label=colored,
        classes="background 0 0 0\nred 255 0 0\ngreen 0 255 0\n",
    ),
    case("UTF-16 of PowerShell", classes="background\r\nred\r\ngreen\r\n".encode("utf-16")),
    case("UTF-8 with a mark and CRLF", classes=b"\xef\xbb\xbfbackground\r\nred\r\ngreen\r\n"),
    case(
        "cp1252", classes="Hintergrund\nstraße\ngreen\n".encode("cp1252"), wrong="save it as UTF-8"
    ),
    case("all on one line", classes="background, red, green\n", wrong="more than one name"),
    case("counts", classes="background 5210\nred 77\ngreen 4\n", wrong="after the name"),
    case(
        "counts after colons",
        classes="background: 5210\nred: 77\ngreen: 4\n",
        wrong="more than one name",
    ),
    case(
        "index and count",
        classes="0 background 5210\n1 red 77\n2 green 4\n",
        wrong="after the name",
    ),
    case(
        "two of three colours",
        classes="0 background 0 0\n1 red 255 0\n2 green 0 255\n",
        wrong="after the name",
    ),
    case("a JSON list", classes='["background", "red", "green"]\n', wrong="another format"),
    case("a YAML list", classes="- background\n- red\n- green\n", wrong="another format"),
    case(
        "hex colours",
        classes="0,background,#000000\n1,red,#ff0000\n2,green,#00ff00\n",
        wrong="another format",
    ),
    case(
        "numbered with dots",
        classes="0. background\n1. red\n2. green\n",
        wrong="not a whole",
    ),
    case(
        "half numbered",
        classes="background\n1 red\n2 green\n",
        wrong="some lines begin with an index",
    ),
    case("a name twice", classes="background\nred\nred\n", wrong="two classes have the name red"),
    case(
        "another order than the labels",
        classes="background\ngreen\nred\nblue\n",
        wrong="no pixel of class blue",
    ),
)


def _classes_of(text: str, names: tuple[str, ...]) -> Case:
    return Case(f"names {names}", lambda root: folder(root, text), classes=names)


NAMED = (
    _classes_of("背景\n道\nstraße 1\n", ("背景", "道", "straße 1")),
    _classes_of("class 0\nclass 1\nclass 2\n", ("class 0", "class 1", "class 2")),
    _classes_of("sky\ntraffic light\n3d object\n", ("sky", "traffic light", "3d object")),
)

# --- pictures ---------------------------------------------------------------------------------


def _marked(orientation: int, suffix: str = ".jpg") -> Draw:
    def draw(path: Path, image_HW3: Array, _: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(Image.fromarray(image_HW3), path, suffix, exif=exif)

    return draw


def _sixteen_bits(factor: int, offset: int = 0) -> Draw:
    def draw(path: Path, image_HW3: Array, _: int) -> None:
        cv2.imwrite(f"{path}.png", image_HW3[:, :, ::-1].astype(np.uint16) * factor + offset)

    return draw


def _float(path: Path, image_HW3: Array, _: int) -> None:
    cv2.imwrite(f"{path}.tif", (image_HW3[:, :, ::-1] / 255).astype(np.float32))


def _suffixes(path: Path, image_HW3: Array, number: int) -> None:
    suffix = (".JPG", ".jpeg", ".webp", ".PNG")[number % 4]
    save(Image.fromarray(image_HW3), path, suffix)


def _other_size(root: Path, splits: Iterable[str], size: tuple[int, int]) -> Path:
    for split in splits:
        for file in (root / split).glob("*/*.png"):
            Image.open(file).resize(size, Image.Resampling.NEAREST).save(file)
    return root


def _one_large(root: Path) -> Path:
    for kind in ("images", "labels"):
        file = root / "train" / kind / "s00.png"
        Image.open(file).resize((WIDTH * 4, HEIGHT * 3), Image.Resampling.NEAREST).save(file)
    return root


def _heic(root: Path) -> Path:
    for file in (root / "train/images").iterdir():
        file.rename(file.with_suffix(".heic"))
    return root


def _junk(root: Path) -> Path:
    for name in ("Thumbs.db", ".DS_Store", "._s00.png", "desktop.ini"):
        (root / "train/images" / name).write_bytes(b"x")
    (root / "train/images/.thumbnails").mkdir()
    (root / "train/images/.thumbnails/s00.png").write_bytes(b"x")
    return root


PICTURES = (
    case(
        "12 bits in 16",
        image=_sixteen_bits(16),
        said=r"of 65535\); stretch them with --image-range 0:4095",
    ),
    case(
        "a thermal camera's range",
        image=_sixteen_bits(6, 7000),
        said=r"--image-range 70\d\d:8\d\d\d",
    ),
    case("16 bits in full", image=_sixteen_bits(257)),
    Case(
        "12 bits in 16, told",
        lambda root: folder(root, image=_sixteen_bits(16)),
        options="image-range=0:4095",
    ),
    case("floats", image=_float, wrong="--image-range LOW:HIGH"),
    Case("floats, told", lambda root: folder(root, image=_float), options="image-range=0:1"),
    case(
        "turned by half", image=_marked(3), said="4 pictures were turned upright by their EXIF mark"
    ),
    case("turned by a quarter", image=_marked(6), said="4 pictures and their labels were turned"),
    case("marked as upright", image=_marked(1)),
    case(
        "TIFFs turned by half",
        image=_marked(3, ".tif"),
        said="4 pictures were turned upright by their EXIF mark",
    ),
    case(
        "TIFFs turned by a quarter",
        image=_marked(6, ".tif"),
        said="4 pictures and their labels were turned",
    ),
    case("suffixes of all kinds", image=_suffixes),
    case("CMYK", image=lambda p, a, n: save(Image.fromarray(a).convert("CMYK"), p, ".jpg")),
    changed("HEIC", _heic, wrong=r"s00\.heic is there, but of \.heic"),
    changed("files of systems", _junk),
    changed(
        "one large picture", _one_large, said="the network's input is 48x32, the size of 3 of 4"
    ),
    changed(
        "val of another aspect",
        lambda r: _other_size(r, ["val"], (48, 48)),
        said="val: 2 of 2 pictures have another aspect .* e.g. 48x48",
    ),
)

# --- folders ----------------------------------------------------------------------------------


def _nest(numbers: Iterable[int], labels_too: bool = True) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for number in numbers:
            for split in SPLITS:
                for kind in ("images", "labels") if labels_too else ("images",):
                    file = root / split / kind / f"s{number:02d}.png"
                    (file.parent / "drive 1").mkdir(exist_ok=True)
                    if file.exists():
                        file.rename(file.parent / "drive 1" / file.name)
        return root

    return change


def _without(*names: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return root

    return change


def _emptied(*splits: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for split in splits:
            for file in (root / split).glob("*/*.png"):
                file.unlink()
        return root

    return change


def _renamed(old: str, new: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        (root / old).rename(root / new)
        return root

    return change


def _copied(old: str, new: str) -> Callable[[Path], Path]:
    return lambda root: shutil.copytree(root / old, root / new)


def _ignore_labels(*splits: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for split in splits:
            for file in (root / split / "labels").glob("*.png"):
                Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(file)
        return root

    return change


def unsplit(root: Path, count: int, name: Callable[[int], str] = "pic_{}_x".format) -> Path:
    """Write a `folder:` set without splits."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        image_HW3, label_HW = scene(number)
        for kind, pixels in (("images", image_HW3), ("labels", label_HW)):
            file = root / kind / f"{name(number)}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(file)
    (root / "classes.txt").write_text(LIST)
    return root


def _small(count: int, said: str = "each picture goes by its name") -> Case:
    return Case(f"{count} pictures without splits", lambda root: unsplit(root, count), said=said)


FOLDERS = (
    changed("all in a folder of a drive", _nest(range(8))),
    changed("half of them in a folder", _nest([0, 1, 4])),
    changed(
        "pictures in folders, labels not",
        _nest(range(8), False),
        wrong="image has no label drive 1/s00",
    ),
    changed("a label is missing", _without("train/labels/s03.png"), wrong="image has no label s03"),
    changed("train alone", _without("val", "test"), said="no split val"),
    changed("train and val", _without("test")),
    changed("no train", _without("train"), wrong="has no split train"),
    changed("valid", _renamed("val", "valid")),
    changed("validation", _renamed("val", "validation")),
    changed("val and valid", _copied("val", "valid"), wrong="both val/images and valid/images"),
    changed("an empty train", _emptied("train"), wrong="train is empty"),
    changed("an empty val", _emptied("val"), wrong="val is empty"),
    changed("an empty test", _emptied("test")),
    changed("val all ignored", _ignore_labels("val"), wrong="val: all pixels are ignored"),
    changed("test all ignored", _ignore_labels("test")),
    changed(
        "a picture all ignored",
        lambda r: Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(
            r / "train/labels/s03.png"
        ),
    ),
    *(_small(count) for count in (1, 2, 3, 4, 5, 8)),
    Case("frames of a video", lambda r: unsplit(r, 12, "frame_{:06d}".format), said="--split-by"),
    Case(
        "sequences by folder",
        lambda r: unsplit(r, 12, lambda n: f"drive{n % 4}/{n}"),
        options="split-by=folder",
        said="each sequence",
    ),
    Case(
        "one sequence",
        lambda r: unsplit(r, 6, "a_{}".format),
        options="split-by=^[^_]+",
        wrong="all 6 pictures are one sequence, 'a'",
    ),
    Case(
        "no such sequence",
        lambda r: unsplit(r, 6),
        options="split-by=Seq[0-9]",
        wrong="holds nothing that",
    ),
    Case(
        "sequences of split data", folder, options="split-by=folder", wrong="has splits of its own"
    ),
)


# --- polygons ---------------------------------------------------------------------------------

CATEGORIES = ({"id": 1, "name": "red"}, {"id": 2, "name": "green"})


def _corners(number: int, class_id: int) -> list[float]:
    ys, xs = np.nonzero(scene(number)[1] == class_id)
    left, top, right, bottom = xs.min() + 0.5, ys.min() + 0.5, xs.max() + 0.5, ys.max() + 0.5
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def coco(
    root: Path,
    categories: Iterable[dict[str, Any]] = CATEGORIES,
    more: Iterable[dict[str, Any]] = (),
    other_ids: bool = False,
    change: Callable[[dict[str, Any]], Any] = lambda table: None,
) -> Path:
    """Write COCO instances of train and val; other_ids: val numbers its categories otherwise."""
    for split in ("train", "val"):
        (root / split).mkdir(parents=True, exist_ok=True)
        ids = {1: 2, 2: 1} if other_ids and split == "val" else {1: 1, 2: 2}
        images, objects = [], []
        for number in SPLITS[split]:
            Image.fromarray(scene(number)[0]).save(root / split / f"im{number:02d}.png")
            images.append(
                {"id": number, "file_name": f"im{number:02d}.png", "width": WIDTH, "height": HEIGHT}
            )
            for class_id, category in ids.items():
                outline = _corners(number, class_id)
                objects.append(
                    {
                        "id": len(objects),
                        "image_id": number,
                        "category_id": category,
                        "segmentation": [outline],
                    }
                )
        listed = (
            [{**c, "id": ids[c["id"]]} for c in categories]
            if other_ids and split == "val"
            else list(categories)
        )
        extra = list(more) if split == "train" else []
        table = {"images": images, "annotations": objects + extra, "categories": listed}
        change(table)
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(table))
    return root


def _broken(name: str, wrong: str, **fields: Any) -> tuple[Case, Case]:
    """Return the case of one broken object, refused, and with --skip-broken left out."""
    entry = {"id": 999, "image_id": 3, "category_id": 1, **fields}

    def write(root: Path) -> Path:
        return coco(root, more=[entry])

    place = rf"annotation 999 of im03\.png: .*{wrong}"
    skipped = Case(
        f"{name}, skipped", write, "coco", said=f"skipped .*{place}", options="skip-broken=0.05"
    )
    return Case(name, write, "coco", wrong=place), skipped


def _text_ids(table: dict[str, Any]) -> None:
    for image in table["images"]:
        image["id"] = f"{image['id']}_a"
    for entry in table["annotations"]:
        entry["image_id"] = f"{entry['image_id']}_a"


ROOT = {"id": 0, "name": "objects", "supercategory": "none"}
UNDER = tuple({**category, "supercategory": "objects"} for category in CATEGORIES)

COCO = (
    Case("COCO", coco, "coco"),
    Case("val numbers its categories otherwise", lambda r: coco(r, other_ids=True), "coco"),
    Case(
        "val names another category",
        lambda r: coco(r, change=_rename_in_val),
        "coco",
        wrong="has the category 'blue', which",
    ),
    Case(
        "a category twice",
        lambda r: coco(r, [*CATEGORIES, {"id": 3, "name": "red"}]),
        "coco",
        wrong="categories 1 and 3 are both called 'red'",
    ),
    Case(
        "a category background",
        lambda r: coco(r, [{"id": 0, "name": "_background_"}, *CATEGORIES]),
        "coco",
    ),
    Case(
        "Roboflow's root",
        lambda r: coco(r, [ROOT, *UNDER]),
        "coco",
        said="'objects' is the head of others",
    ),
    Case(
        "a category without objects",
        lambda r: coco(r, [*CATEGORIES, {"id": 3, "name": "blue"}]),
        "coco",
        wrong="no pixel of class blue",
    ),
    Case("image ids of text", lambda r: coco(r, change=_text_ids), "coco"),
    *_broken("an empty outline", "no outline", segmentation=[]),
    *_broken("no outline", "no outline"),
    *_broken("outline null", "no outline", segmentation=None),
    *_broken("two corners", "polygon of 2 corners", segmentation=[[1.0, 1.0, 9.0, 9.0]]),
    *_broken(
        "an odd count of numbers", "5 numbers, which are no pairs", segmentation=[[1.0, 1, 9, 9, 3]]
    ),
    *_broken("corners of text", "no numbers", segmentation=[["a", 1, 9, 9, 3, 3]]),
    *_broken(
        "runs of another size",
        "run lengths of size",
        segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]},
    ),
    *_broken("runs without a size", "cannot be read", segmentation={"counts": [3]}),
    *_broken("a number as outline", "cannot be read", segmentation=7),
    *_broken(
        "an unknown category",
        "no category has the number 9",
        segmentation=[[1, 1, 9, 1, 9, 9]],
        category_id=9,
    ),
    Case(
        "too many broken objects",
        lambda r: coco(
            r, more=[{"id": 900 + i, "image_id": 1, "category_id": 1} for i in range(2)]
        ),
        "coco",
        wrong="2 of 10 annotations are broken, more than 5%",
        options="skip-broken=0.05",
    ),
)


def _rename_in_val(table: dict[str, Any]) -> None:
    if table["images"][0]["id"] == SPLITS["val"][0]:
        table["categories"][1] = {"id": 2, "name": "blue"}


def yolo(
    root: Path,
    change: Callable[[list[str]], list[str]] = lambda lines: lines,
    numbers: Iterable[int] = (3,),
    names: str = "red\ngreen\n",
) -> Path:
    """Write YOLO segments; `change` changes the lines of some pictures."""
    for split, its in SPLITS.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in its:
            Image.fromarray(scene(number)[0]).save(root / "images" / split / f"im{number:02d}.png")
            scale = np.tile([WIDTH, HEIGHT], 4)
            shares = [np.array(_corners(number, class_id)) / scale for class_id in (1, 2)]
            lines = [f"{k} " + " ".join(f"{v:.6f}" for v in its) for k, its in enumerate(shares)]
            lines = change(lines) if number in numbers else lines
            (root / "labels" / split / f"im{number:02d}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text(names)
    return root


def _line(name: str, line: str, wrong: str) -> tuple[Case, Case]:
    def write(root: Path) -> Path:
        return yolo(root, lambda lines: [*lines, line])

    place = rf"line 3 .*{wrong}"
    return Case(name, write, "yolo", wrong=place), Case(
        f"{name}, skipped", write, "yolo", said=f"skipped .*{place}", options="skip-broken=0.05"
    )


YOLO = (
    Case("YOLO", yolo, "yolo"),
    Case(
        "numbers as floats",
        lambda r: yolo(r, lambda its: [i.replace(" ", ".0 ", 1) for i in its], range(8)),
        "yolo",
    ),
    Case(
        "commas",
        lambda r: yolo(r, lambda its: [i.replace(" ", ",") for i in its], range(8)),
        "yolo",
        wrong="is no number",
    ),
    Case(
        "confidences",
        lambda r: yolo(r, lambda its: [f"{i} 0.93" for i in its], range(8)),
        "yolo",
        wrong="9 numbers after the class are no pairs",
    ),
    Case(
        "a class background",
        lambda r: yolo(
            r,
            lambda its: [
                i.replace("1 ", "2 ", 1) if i.startswith("1 ") else i.replace("0 ", "1 ", 1)
                for i in its
            ],
            range(8),
            "background\nred\ngreen\n",
        ),
        "yolo",
    ),
    Case(
        "counts in YOLO's list",
        lambda r: yolo(r, names="red 10\ngreen 20\n"),
        "yolo",
        wrong="after the name",
    ),
    *_line("a box", "0 0.02 0.02 0.01 0.01", "is a box"),
    *_line("outside of the picture", "0 0.5 0.5 0.9 0.9 1.0371 0.5", "fractions from 0 to 1"),
    *_line("a corner cut off", "0 0.5 0.5 0.6", "3 numbers after the class"),
    *_line("a name for a number", "cat 0 0 1 0 1 1", "'cat' is no number"),
    *_line("a class too high", "7 0 0 1 0 1 1", "known class"),
)

CASES = (*LABELS, *LISTS, *NAMED, *PICTURES, *FOLDERS, *COCO, *YOLO)
