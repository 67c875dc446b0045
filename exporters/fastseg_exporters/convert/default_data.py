"""Which images to calibrate and verify on when the user names none: those of the training."""

from dataclasses import dataclass

from fastseg import CheckpointInfo
from fastseg.data import DataError, open_dataset

KEY = "data"  # in CheckpointInfo.training: the data set as fastseg-train was given it


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
    spec = info.training.get(KEY)
    if not isinstance(spec, str):
        return RecordedData()
    if reason := why_unusable(spec, info.trained_on, len(info.classes)):
        return RecordedData(note=f"the data of the training cannot be used here: {reason}")
    return RecordedData(spec, f"images to calibrate and verify on: {spec}, as in the training")


def why_unusable(spec: str, trained_on: str, num_classes: int) -> str | None:
    """Return why a data set cannot serve here, or None if it can.

    Args:
        spec: for open_dataset().
        trained_on: data set and split of the training, as CheckpointInfo has it.
        num_classes: of the network.
    """
    try:
        open_dataset(spec, "train")
        found = len(open_dataset(spec, unseen_split(trained_on, spec)).classes)
    except (DataError, OSError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    if found != num_classes:
        return f"{spec} has {found} classes, the network {num_classes}"
    return None


def unseen_split(trained_on: str, spec: str | None) -> str:
    """Return the split of a data set whose pictures the training has not seen."""
    kind = (spec or "").partition(":")[0]
    return "test" if trained_on == f"{kind} trainval" else "val"
