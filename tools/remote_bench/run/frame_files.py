"""Frames of the user's own, as arrays, for a board that reads neither pictures nor video.

A folder of pictures, FOLDER/*.jpg or FOLDER/images/*.jpg; where labels/NAME.png lies beside images/
the run's mIoU is measured too. A label is a picture of class ids, or of the classes' colours; what
its greys can mean twice the other labels tell, or it is refused, not guessed. Of a video and of
many pictures, 100 frames are taken evenly.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from fastseg_runtime.arrays.image import SUFFIXES, ImageError, read_image
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, Manifest

from remote_bench.host.errors import UsageError

_MOST_FRAMES = 100  # enough for an mIoU, and seconds to read and send
_MOST_BYTES = 200 << 20  # they lie in the board's memory during the run
_PNG_START = b"\x89PNG\r\n\x1a\n"
_T = TypeVar("_T")
Frame = tuple[Array, Array | None]  # image (H, W, 3) RGB, class ids (H, W); both uint8


def frames_zip(source: Path, archive: BinaryIO, manifest: Manifest) -> tuple[int, int]:
    """Write NAME.npy and NAME.label.npy of up to 100 frames, and 200 MB, into a zip.

    Returns:
        How many frames, and how many of them have labels.

    Raises:
        UsageError: no frame there, or one that cannot be read.
    """
    frames = labelled = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number, (image_HW3, label_HW) in enumerate(read_frames(source, manifest)):
            _write(file, f"{number:04}.npy", image_HW3)
            frames += 1
            if label_HW is not None:
                _write(file, f"{number:04}.label.npy", label_HW)
                labelled += 1
    return frames, labelled


def read_frames(source: Path, manifest: Manifest) -> Iterator[Frame]:
    """Yield up to 100 frames, and 200 MB, of a folder or a video: image and label, or None.

    Of larger frames there are fewer, from end to end too.

    Raises:
        UsageError: no frame there, or one that cannot be read.
    """
    found = _of_folder(source, manifest) if source.is_dir() else _of_video(source)
    kept = _evenly(_thinned(found))
    yield from kept
    if not kept:
        raise UsageError(
            f"--frames {source}: no frame there; expected {', '.join(SUFFIXES)} or a video"
        )


def _of_folder(folder: Path, manifest: Manifest) -> Iterator[Frame]:
    if (folder / "images").is_dir():
        folder = folder / "images"
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    pairs = [(file, folder.parent / "labels" / f"{file.stem}.png") for file in _evenly(files)]
    labels = [label for _, label in pairs if folder.name == "images" and label.is_file()]
    try:
        are_ids = _are_ids(labels, manifest)
        for file, label in pairs:
            image_HW3, label_HW = read_image(file), None
            if label in labels:
                label_HW = read_label(label, manifest, are_ids)
                _check_shape(label, label_HW, file, image_HW3)
            yield image_HW3, label_HW
    except ImageError as error:
        raise UsageError(f"--frames: {error}") from error


def _are_ids(labels: Iterable[Path], manifest: Manifest) -> bool | None:
    """Return whether labels are ids, not colours, by the first that can be one of them alone."""
    for label in labels:
        label_HW3, is_indexed = _read_pixels(label)
        if is_indexed or not _is_grey(label_HW3):
            return False
        found = _greys_are_ids(np.unique(label_HW3[..., 0]).tolist(), manifest, label)
        if found is not None:
            return found
    return None


def _check_shape(label: Path, label_HW: Array, image: Path, image_HW3: Array) -> None:
    # A smaller label of the same view does; one of another shape is of another view, cut or padded.
    (height, width), (rows, columns) = image_HW3.shape[:2], label_HW.shape
    if abs(width * rows - columns * height) > max(width, height):  # half a pixel, rounded
        raise UsageError(
            f"--frames: {label} is {columns}x{rows} and {image.name} {width}x{height}; expected a "
            "label of the same shape, as annotated"
        )


def _of_video(file: Path) -> Iterator[Frame]:
    from fastseg_runtime.frames.stream import VideoError
    from fastseg_runtime.frames.video import FrameSource  # needs OpenCV

    try:
        video = FrameSource(str(file))
    except VideoError as error:
        raise UsageError(f"--frames: {error}") from error
    try:
        if video.count or not file.is_file():
            wanted = set(_evenly(list(range(video.count or _MOST_FRAMES))))
            numbered = enumerate(islice(video, max(wanted) + 1))
            frames: Iterable[Array] = (frame for number, frame in numbered if number in wanted)
        else:  # what was cut off, or is bare pictures, does not say
            frames = video
        for frame_HW3 in frames:
            yield frame_HW3, None
    finally:
        video.close()


def _thinned(frames: Iterable[Frame]) -> list[Frame]:
    """Return up to 200 frames, and 200 MB, at equal distances, however long a video goes on."""
    kept: list[Frame] = []
    step = 1
    for number, frame in enumerate(frames):
        if number % step == 0:
            kept.append(frame)
        held = sum(image_HW3.nbytes for image_HW3, _ in kept)
        if len(kept) == 2 * _MOST_FRAMES or (held > _MOST_BYTES and len(kept) > 1):
            kept, step = kept[::2], 2 * step
    return kept


def _evenly(items: list[_T]) -> list[_T]:
    count = min(len(items), _MOST_FRAMES)
    return [items[index * len(items) // count] for index in range(count)]


_PALETTE = 3  # a colour type of the PNG specification, section 11.2.1
_HOW = "save it with the classes' colours, as an indexed PNG"
_BLACK = (0, 0, 0)  # what many labels draw where nobody judged


def read_label(file: Path, manifest: Manifest, are_ids: bool | None = None) -> Array:
    """Return the class ids (H, W) of a label file, 255 where it is none of the classes.

    Args:
        file: of the label.
        manifest: has the classes.
        are_ids: what the labels beside it are, for greys that can be ids and colours.

    Raises:
        UsageError: its pixels are neither ids of 8 bits nor the classes' colours.
        ImageError: it is no picture.
    """
    label_HW3, is_indexed = _read_pixels(file)
    if not is_indexed:
        return class_ids(label_HW3, manifest, file, are_ids)
    colours = {tuple(row) for row in np.unique(label_HW3.reshape(-1, 3), axis=0).tolist()}
    if unknown := sorted(colours - {info.color for info in manifest.classes} - {_BLACK}):
        raise UsageError(
            f"--frames: {file} is an indexed PNG that shows {unknown[0]}, the colour of no class; "
            "save it with the classes' colours, or as grey with class ids"
        )
    return _of_colours(label_HW3, manifest)


def _read_pixels(file: Path) -> tuple[Array, bool]:
    """Return a label as RGB, and whether a palette says what colours its indices are."""
    label_HW3, content = read_image(file), file.read_bytes()
    depth, kind = content[24:26] if content.startswith(_PNG_START) else (8, 0)
    if depth != 8 and kind != _PALETTE:
        raise UsageError(
            f"--frames: {file} has {depth} bits a sample; expected a PNG of 8 bits with class ids, "
            "or the classes' colours"
        )
    return label_HW3, kind == _PALETTE and not _is_grey_ramp(content)


def _is_grey_ramp(content: bytes) -> bool:
    """Return whether entry n of a PNG's palette is grey n, so that indices are what is seen."""
    at = content.find(b"PLTE")
    palette = content[at + 4 : at + 4 + int.from_bytes(content[at - 4 : at], "big")]
    return all(set(palette[3 * n : 3 * n + 3]) == {n} for n in range(len(palette) // 3))


def class_ids(
    label_HW3: Array, manifest: Manifest, file: Path, are_ids: bool | None = None
) -> Array:
    """Return the class ids (H, W) of a label read as RGB; 255 where it is none of the classes.

    Of K classes the id K is void (CamVid, UrbanSyn), and so is 255. Greys that can be ids and
    colours are what the labels beside them are; where none tells, colours, if no grey is another
    class by its id.

    Raises:
        UsageError: greys that are neither, or both.
    """
    red_HW, count = label_HW3[..., 0], len(manifest.classes)
    if not _is_grey(label_HW3):
        return _of_colours(label_HW3, manifest)
    greys: list[int] = np.unique(red_HW).tolist()
    found = _greys_are_ids(greys, manifest, file)
    if found is None:
        found = are_ids
    by_grey = _by_grey(manifest)
    if found is None and greys == [0] and 0 not in by_grey:  # nothing but background, as ids
        found = True
    if found is None and (
        both := [grey for grey in greys if grey < count and by_grey.get(grey, grey) != grey]
    ):
        raise UsageError(
            f"--frames: {file} holds the grey {both[0]}, one class by its id and another by "
            f"its colour, and no label says which; {_HOW}"
        )
    if not found:
        return _of_colours(label_HW3, manifest)
    return np.where(red_HW < count, red_HW, IGNORE_INDEX).astype(np.uint8)


def _is_grey(label_HW3: Array) -> bool:
    return bool((label_HW3 == label_HW3[..., :1]).all())


def _by_grey(manifest: Manifest) -> dict[int, int]:
    return {i.color[0]: n for n, i in enumerate(manifest.classes) if len(set(i.color)) == 1}


def _greys_are_ids(greys: Iterable[int], manifest: Manifest, file: Path) -> bool | None:
    """Return whether the greys of a label are ids, not colours; None where they can be both.

    255 tells nothing: it is ignored among both, unless a class is white. Nor does black.

    Raises:
        UsageError: they are neither.
    """
    count, judged = len(manifest.classes), [grey for grey in greys if grey != IGNORE_INDEX]
    lost = [grey for grey in judged if grey > count]
    are_colours = {0, *_by_grey(manifest)} >= set(judged)  # black may be what nobody labelled
    if lost and not are_colours:
        raise UsageError(
            f"--frames: {file} holds the grey {lost[0]}; expected ids of the bundle's {count} "
            f"classes, 0 to {count - 1}, or greys that are all colours of classes. Another data "
            f"set's ids have to become those (255 means: ignore), or {_HOW}"
        )
    return None if are_colours and not lost else not are_colours


def _of_colours(label_HW3: Array, manifest: Manifest) -> Array:
    ids_HW = np.full(label_HW3.shape[:2], IGNORE_INDEX, np.uint8)
    for number, info in enumerate(manifest.classes):
        ids_HW[(label_HW3 == np.array(info.color, np.uint8)).all(axis=2)] = number
    return ids_HW


def _write(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    # Without a date: equal frames are an equal archive, which is how compare knows them.
    entry = zipfile.ZipInfo(name)
    archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
