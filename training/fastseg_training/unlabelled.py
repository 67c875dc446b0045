"""Pictures that nobody labelled: of a folder or a video, for the teacher alone to label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from fastseg_runtime.frames.job import VIDEO_SUFFIXES
from fastseg_runtime.frames.video import FrameSource

from fastseg.data import Array
from fastseg.data.file_dataset import IMAGE_SUFFIXES
from fastseg.data.image_file import read_image
from fastseg_training.config import ConfigError


@dataclass(frozen=True)
class Frame:
    """A picture without labels.

    Attributes:
        image_HW3: uint8, RGB.
        name: its file, with the number of the frame in a video.
    """

    image_HW3: Array
    name: str


@dataclass(frozen=True)
class Frames:
    """Evenly spread pictures of a folder's files and videos, in the order of names.

    Attributes:
        chosen: of each file, how many frames of it come first and which are taken.
    """

    chosen: tuple[tuple[Path, tuple[int, ...]], ...]

    def __len__(self) -> int:
        """Return the number of pictures; fewer come if a video is shorter than it says."""
        return sum(len(numbers) for _, numbers in self.chosen)

    def __iter__(self) -> Iterator[Frame]:
        """Decode picture after picture."""
        for file, numbers in self.chosen:
            if not is_video(file):
                yield Frame(read_image(file), str(file))
                continue
            source = FrameSource(str(file))
            wanted = set(numbers)
            for number, image_HW3 in enumerate(islice(source, numbers[-1] + 1)):
                if number in wanted:
                    yield Frame(image_HW3, f"{file} frame {number}")
            source.close()


def open_frames(place: str, most: int) -> Frames:
    """Find pictures and videos, and choose among their frames.

    Args:
        place: a folder, gone through with all in it, a picture or a video.
        most: pictures to take; where there are more, they are spread evenly.

    Raises:
        ConfigError: there is nothing in it.
        VideoError: a video does not open.
    """
    files = _files(Path(place))
    counts = [_count(file) if is_video(file) else 1 for file in files]
    total = sum(counts)
    if not total:
        raise ConfigError(
            f"no pictures in {place}; expected *{', *'.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}"
        )
    taken = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
    starts = np.cumsum([0, *counts])
    chosen = []
    for file, start, end in zip(files, starts, starts[1:], strict=False):
        numbers = tuple(int(n - start) for n in taken if start <= n < end)
        if numbers:
            chosen.append((file, numbers))
    return Frames(tuple(chosen))


def is_video(file: Path) -> bool:
    """Return whether a file's name is that of a video."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise ConfigError(f"no folder or video {place} with pictures for the teacher to label")
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    wanted = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    return [file for file in files if file.suffix.lower() in wanted and file.name[0] != "."]


def _count(video: Path) -> int:
    """Return how many frames a video has, as its header says or else by decoding it."""
    source = FrameSource(str(video))
    count = source.count or sum(1 for _ in source)
    source.close()
    return count
