"""What a teacher adds to a training: soft labels of its pictures, and pictures without labels."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.command import INTERRUPTED
from fastseg_runtime.arrays.image import resize_bilinear, resize_nearest
from fastseg_runtime.arrays.metrics import confusion_matrix, iou_per_class
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.frames.stream import VIDEO_SUFFIXES
from fastseg_runtime.frames.video import FrameSource

from fastseg import CheckpointError
from fastseg.data import Array, DataError, Sample
from fastseg.data.file_dataset import IMAGE_SUFFIXES
from fastseg.data.image_file import Range, read_picture, stored_range
from fastseg.data.read_options import parse_spec
from fastseg_training.batches.resident import ResizedDataset, memory_budget_bytes
from fastseg_training.batches.soft_labels import Labels, Picture, SoftLabels, label_softly
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.run_folder import TrainingStoppedError
from fastseg_training.teacher import Teacher

Size = tuple[int, int]
BYTE = 255  # the most that 8 bits hold
SAMPLED = 100  # pictures are enough to see that a map or a normalisation is wrong


@dataclass(frozen=True)
class Lessons:
    """What goes into the plan of batches beside the labelled samples.

    Attributes:
        soft: the teacher's labels of the samples, then of the unlabelled ones.
        unlabelled: samples of which nobody judged anything, in memory.
        places: how many of a batch are for those.
    """

    soft: Labels = ()
    unlabelled: Sequence[Sample] = ()
    places: int = 0


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
        image_range: of stored values, as of the labelled pictures; files of 8 bits that cannot
            hold such values are seen as they are.
    """

    chosen: tuple[tuple[Path, tuple[int, ...]], ...]
    image_range: Range | None = None

    def __len__(self) -> int:
        """Return the number of pictures; fewer come if a video or a picture is damaged."""
        return sum(len(numbers) for _, numbers in self.chosen)

    def __iter__(self) -> Iterator[Frame]:
        """Decode picture after picture; one that cannot be is named and left out."""
        for file, numbers in self.chosen:
            if file.suffix.lower() not in VIDEO_SUFFIXES:
                try:
                    yield Frame(self._read(file), str(file))
                except DataError as error:
                    print(printable(f"skipped: {error}"), file=sys.stderr)
                continue
            source = FrameSource(str(file))
            wanted = set(numbers)
            for number, image_HW3 in enumerate(islice(source, numbers[-1] + 1)):
                if number in wanted:
                    yield Frame(image_HW3, f"{file} frame {number}")
            source.close()

    def _read(self, file: Path) -> Array:
        meant = self.image_range
        if meant and stored_range(file)[1] == BYTE < meant[1]:
            meant = None
        return read_picture(file, meant).image_HW3


def give_lessons(
    config: TrainConfig, teacher: Teacher | None, samples: ResizedDataset, size: Size
) -> Lessons:
    """Let a teacher label all pictures of a training, as far as it has not done so before.

    Those without labels are resized to (width, height), as the runtime does with what a camera
    gives. No teacher gives no lessons.

    Raises:
        ConfigError: there are no pictures without labels, or they do not fit.
        TrainingStoppedError: Ctrl-C.
    """
    if teacher is None:
        return Lessons()
    try:
        return _give_lessons(config, teacher, samples, size)
    except KeyboardInterrupt as error:
        raise TrainingStoppedError(
            "stopped while the teacher labels pictures; the same command goes on from there",
            getattr(error, "exit_code", INTERRUPTED),
        ) from error


def _give_lessons(
    config: TrainConfig, teacher: Teacher, samples: ResizedDataset, size: Size
) -> Lessons:
    frames = _open_frames(config, size)  # before hours are spent on the others
    _try_on_frame(teacher, frames, config.unlabelled, size)
    labels = label_softly(_pictures(samples), len(samples), teacher, "the training split")
    say_agreement(teacher, samples, labels)
    if not len(frames):
        return Lessons(labels.resident())
    kept: list[Sample] = []
    more = label_softly(_kept(frames, size, kept), len(frames), teacher, config.unlabelled)
    if len(kept) < len(frames):
        print(
            f"{config.unlabelled}: {len(kept)} of {len(frames)} pictures could be read; is it cut "
            "off?",
            file=sys.stderr,
        )
    return Lessons(SoftLabels(labels.files + more.files).resident(), kept, _places(config))


def _try_on_frame(teacher: Teacher, frames: Frames, place: str, size: Size) -> None:
    """Raise ConfigError if no frame can be read, or the teacher does not take the first's shape."""
    if not len(frames):
        return
    frame = next(iter(frames), None)
    if frame is None:
        raise ConfigError(f"no picture of {place} can be read; copy it again")
    try:
        teacher.probabilities(frame.image_HW3, size)
    except CheckpointError as error:
        raise ConfigError(
            f"{frame.name}, of those without labels, is no picture for the teacher, which has "
            f"to take the data's shape and this one: {error}"
        ) from error


def say_agreement(teacher: Teacher, samples: ResizedDataset, labels: SoftLabels) -> None:
    """Say on stderr how well a teacher knows the labels, on at most SAMPLED pictures.

    A wrong map, size or normalisation shows here, before hours are spent on it. Pixels of classes
    that a map leaves out are no fault of the teacher's, which has to say something there.
    """
    num_classes = len(teacher.class_map.classes)
    taught = [*teacher.class_map.taught]
    confusion_KK = np.zeros((num_classes, num_classes), np.int64)
    for index in range(0, len(samples), -(-len(samples) // SAMPLED)):
        code_hwK = labels[index]
        label_hw = resize_nearest(samples[index].label_HW, code_hwK.shape[1], code_hwK.shape[0])
        label_hw = np.where(np.isin(label_hw, taught), label_hw, IGNORE_INDEX)
        confusion_KK += confusion_matrix(code_hwK.argmax(-1), label_hw, num_classes)
    iou_K = iou_per_class(confusion_KK)[taught]
    if np.isnan(iou_K).all():
        return
    weakest = teacher.class_map.classes[taught[int(np.nanargmin(iou_K))]]
    print(
        f"{teacher.name} against the labels: mIoU {np.nanmean(iou_K):.3f}, {weakest} "
        f"{np.nanmin(iou_K):.2f}; if that is little, look at the map, the size and the "
        "normalisation",
        file=sys.stderr,
    )


def _pictures(samples: ResizedDataset) -> Iterator[Picture]:
    for index in range(len(samples)):
        sample = samples.dataset[index]
        height, width = sample.label_HW.shape
        yield Picture(sample.image_HW3, samples.size or (width, height))


def _kept(frames: Frames, size: Size, kept: list[Sample]) -> Iterator[Picture]:
    """Yield the frames as large as they are, and keep them at the training's size."""
    width, height = size
    unjudged_HW = np.full((height, width), IGNORE_INDEX, np.uint8)
    for frame in frames:
        yield Picture(frame.image_HW3, size)
        image_HW3 = resize_bilinear(frame.image_HW3, width, height)
        kept.append(Sample(image_HW3, unjudged_HW, frame.name, (frame.name,)))


def _open_frames(config: TrainConfig, size: Size) -> Frames:
    """Find the pictures without labels, none if none are named."""
    if not config.unlabelled:
        return Frames(())
    meant = parse_spec(config.dataset())[1].range(config.data)
    frames = open_frames(config.unlabelled, config.unlabelled_frames.most, meant)
    needed, budget = len(frames) * size[0] * size[1] * 3, memory_budget_bytes()
    if needed > budget:
        raise ConfigError(
            f"{len(frames)} pictures without labels take {needed / 1e6:.0f} MB of memory, "
            f"{budget / 1e6:.0f} can be spared; set a smaller `most` under [unlabelled_frames]"
        )
    return frames


def _places(config: TrainConfig) -> int:
    """Return how many places of a batch are for pictures without labels: 1 or more, not all."""
    return min(max(1, round(config.batch * config.unlabelled_frames.share)), config.batch - 1)


def open_frames(place: str, most: int, image_range: Range | None = None) -> Frames:
    """Find pictures and videos, and choose among their frames.

    Args:
        place: a folder, gone through with all in it, a picture or a video.
        most: pictures to take; where there are more, they are spread evenly.
        image_range: see Frames.

    Raises:
        ConfigError: there is nothing in it.
        VideoError: a video does not open.
    """
    files = _files(Path(place))
    counts = [_count(file) for file in files]
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
    return Frames(tuple(chosen), image_range)


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise ConfigError(f"no folder or video {place} with pictures for the teacher to label")
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    wanted = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    return [file for file in files if file.suffix.lower() in wanted and file.name[0] != "."]


def _count(file: Path) -> int:
    """Return how many frames a file has, a video as its header says or else by decoding it."""
    if file.suffix.lower() not in VIDEO_SUFFIXES:
        return 1
    source = FrameSource(str(file))
    count = source.count or sum(1 for _ in source)
    source.close()
    return count
