"""What a user names, as plain data: the network and its images; and what is taken where none is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec

from fastseg import CheckpointError, CheckpointInfo, Network, open_network, pretrained
from fastseg.data import (
    AmbiguousDataError,
    DataError,
    MissingSplitError,
    full_spec,
    load_split,
    open_dataset,
    recognise_spec,
)
from fastseg.data.class_list import class_mismatch
from fastseg.data.file_dataset import IMAGE_SUFFIXES, list_files
from fastseg.data.image_file import read_image
from fastseg.fitting import fit_image
from fastseg.normalization import Normalization
from fastseg.outputs import Reading

FOLDERS_TOLD = 5  # in one line
DATA_KEY = "data"  # in CheckpointInfo.training: the data set as fastseg-train was given it


@dataclass(frozen=True)
class NetworkSource:
    """The arguments of fastseg.open_network."""

    spec: str
    classes: tuple[ClassInfo, ...] | None = None
    weights: str | None = None
    size: tuple[int, int] | None = None
    normalization: Normalization | None = None
    output_name: str = ""
    threshold: float = Reading.threshold
    fit: str | None = None

    def open(self) -> Network:
        """Open the network; see open_network for the errors."""
        return open_network(**vars(self))


def default_checkpoint(folder: Path) -> tuple[str, str]:
    """Return a network for open_network() and where it comes from, in words.

    The newest runs/*/model.safetensors below the folder, else the best network that ships.

    Raises:
        CheckpointError: there is none; the message says how to train one.
    """
    runs = sorted(folder.glob("runs/*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if runs:
        return str(runs[-1]), "the newest run here"
    shipped = pretrained.default()
    if shipped is not None:
        return shipped, "shipped with fastseg"
    raise CheckpointError(
        f"no runs/*/model.safetensors in {folder}, and no network ships yet; train one in two "
        "minutes: fastseg-train --data synthetic --model nano --minutes 2"
    )


@dataclass(frozen=True)
class Calibration:
    """Where calibration images come from.

    Attributes:
        data: a data set ("camvid:PATH"), whose training split is used, or a folder of images;
            None: generated scenes.
        count: how many, spread evenly over what there is.
    """

    data: str | None = None
    count: int = 64

    def images(self, spec: InputSpec) -> Iterator[Array]:
        """Yield uint8 RGB images (1, H, W, 3) as the network takes them, one in memory at a time.

        Raises:
            DataError: no image there, or one that cannot be read.
        """
        split = self._training_split(self.data or "synthetic")
        for image_HW3 in self._pictures(Path(self.data or "")) if self._is_plain else split:
            yield np.ascontiguousarray(fit_image(image_HW3, spec))[None]

    @property
    def note(self) -> str:
        """Return how many pictures each folder in a plain one has; "" where all are in one.

        One of them may be of labels, in a layout that nobody recognised.
        """
        folder = Path(self.data or "")
        files = list_files(folder, IMAGE_SUFFIXES) if self._is_plain else []
        found = Counter((file.relative_to(folder).parent.parts or (".",))[0] for file in files)
        counts = ", ".join(f"{name} ({count})" for name, count in found.most_common(FOLDERS_TOLD))
        more = ", ..." if len(found) > FOLDERS_TOLD else ""
        advice = "name one of them if another holds labels, or FORMAT:PATH"
        told = f"calibrating on pictures of {folder} in {counts}{more}; {advice}"
        return told if len(found) > 1 else ""

    @property
    def _is_plain(self) -> bool:
        """Return whether it is a folder of pictures, not a data set."""
        return self.data is not None and Path(self.data).is_dir() and not holds_data_set(self.data)

    def _training_split(self, data: str) -> Iterator[Array]:
        dataset = open_dataset(data, "train")
        for index in _spread(len(dataset), self.count):
            yield dataset[index].image_HW3

    def _pictures(self, folder: Path) -> Iterator[Array]:
        files = list_files(folder, IMAGE_SUFFIXES)
        if not files:
            raise DataError(
                f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}) to calibrate on"
            )
        for index in _spread(len(files), self.count):
            yield read_image(files[index])


def holds_data_set(path: str) -> bool:
    """Return whether a folder is a data set, whose labels are no pictures to calibrate on.

    Raises:
        AmbiguousDataError: it could be several; the message says what to write.
    """
    try:
        return recognise_spec(path) is not None
    except AmbiguousDataError:
        raise
    except DataError:
        return False


def _spread(available: int, wanted: int) -> list[int]:
    """Return indices spread evenly over what there is."""
    count = min(available, wanted)
    return [index * available // count for index in range(count)]


@dataclass(frozen=True)
class RecordedData:
    """What a checkpoint says of its data.

    Attributes:
        spec: for open_dataset(); None where nothing is recorded, or what is cannot be used here.
        note: a line for the user; "" where nothing is recorded.
    """

    spec: str | None = None
    note: str = ""


def recorded_data(info: CheckpointInfo) -> RecordedData:
    """Return the data set that a checkpoint was trained on, if it is still where it was."""
    spec = info.training.get(DATA_KEY)
    if not isinstance(spec, str):
        return RecordedData()
    if reason := why_unusable(spec, info.trained_on, info.classes):
        return RecordedData(note=f"the data of the training cannot be used here: {reason}")
    return RecordedData(spec, f"images to calibrate and verify on: {spec}, as in the training")


def why_unusable(spec: str, trained_on: str, classes: Sequence[ClassInfo]) -> str | None:
    """Return why a data set cannot serve here, or None if it can.

    Args:
        spec: for open_dataset().
        trained_on: data set and split of the training, as CheckpointInfo has it.
        classes: of the network.
    """
    try:
        open_dataset(spec, "train")
        found = open_dataset(spec, unseen_split(trained_on, spec)).classes
    except (DataError, OSError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return class_mismatch(classes, spec, found) or None


def unseen_split(trained_on: str, spec: str | None) -> str:
    """Return the split of a data set that the training has not seen: val where it has one."""
    kind = full_spec(spec or "").partition(":")[0]
    if trained_on == f"{kind} trainval":
        return "test"
    try:
        load_split(spec or "synthetic", "val")
    except MissingSplitError:
        return "test"
    except DataError:
        pass  # said where it is opened
    return "val"
