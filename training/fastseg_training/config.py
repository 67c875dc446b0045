"""The configuration of a training: a frozen dataclass, read from TOML and from options."""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.usage import USAGES

from fastseg.fastsegnet import LOGITS_STRIDE, STRIDE
from fastseg.outputs import Reading
from fastseg_training.augment import Augmentation
from fastseg_training.distill import DistillationOptions
from fastseg_training.losses import LossOptions
from fastseg_training.optimisation import Recipe

NEED_TEACHER = (
    "teacher_weights",
    "teacher_map",
    "teacher_size",
    "teacher_normalization",
    "teacher_licence",
    "teacher_usage",
    "unlabelled",
)


class ConfigError(ValueError):
    """The configuration cannot be used; the message says what to change."""


@dataclass(frozen=True)
class UnlabelledFrames:
    """How much of the training is of pictures that the teacher alone labels.

    Attributes:
        share: of the places of a batch. A quarter leaves most to what people labelled.
        most: pictures that are taken, evenly spread: neighbours in a video show the same, and each
            costs the teacher's time once and memory throughout.
    """

    share: float = 0.25
    most: int = 500

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; expected more than 0 and less than 1")
        if self.most < 1:
            raise ValueError(f"most is {self.most}; expected 1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """What to train on what.

    Attributes:
        data: a data set, as for fastseg.data.open_dataset.
        split: "train" or "trainval".
        holdout: pictures whose names start so are not trained on and are validated on instead of
            the validation split: a drive of a data set that has several; "" for none.
        model: a variant of FastSegNet, a backbone of others, or "package.module:factory".
        init: a checkpoint to start from, for a backbone a file of ImageNet weights; "imagenet" for
            those of an installed package, "noise" for none; "" takes a package's if it is there.
        teacher: a network to imitate: a checkpoint, "package.module:factory" or an ONNX file; ""
            for none.
        teacher_weights: a state dict for the teacher's factory.
        teacher_map: which of its classes make up those of the data: a TOML file or the name of one
            that ships; "" for a teacher of the data's own classes.
        teacher_size: "WxH" at which it sees the pictures; "" for its own, else theirs.
        teacher_normalization: "imagenet", "unit", "centred" or a TOML file; "" for its own.
        teacher_licence: of its weights and of what it was trained on, for the header; a checkpoint
            says it itself.
        teacher_usage: "commercial" or "research": what it may be used for; "" is what its weights
            say, else research.
        unlabelled: a folder or video with pictures that the teacher alone labels; "" for none.
        prune: share of the multiply-adds of `init` to save by removing channels; 0 for none.
        usage: "commercial" or "research": what data and network of one's own may be used for; ""
            says nothing. What is inherited from `init`, `teacher` and known data stays.
        classes: a classes.txt with other names and colours; "" for the data set's own.
        size: "WxH" that pictures are resized to and the network is meant for; "" for their own.
        crop: "WxH" of the training crops, multiples of 32.
        batch: crops per step.
        epochs: passes over the split.
        minutes: if above 0, stop by the clock instead.
        lr: the peak of the learning rate.
        normalization: of a network of one's own: "imagenet", "unit", "centred" or a TOML file;
            "" for what --init was trained with, else "centred".
        color: of a network of one's own: "rgb" or "bgr"; "" for what the normalisation says.
        output_name: of a network of one's own with several outputs, the path of its logits.
        threshold: of a network of one's own with one logit, the probability above which it means
            the second class.
        seed: of weights, order and augmentation.
        threads: CPU threads of torch; 0 leaves it the choice.
        device: "auto", "cpu", "cuda", ...
    """

    data: str = ""
    split: str = "train"
    holdout: str = ""
    model: str = "base"
    init: str = ""
    teacher: str = ""
    teacher_weights: str = ""
    teacher_map: str = ""
    teacher_size: str = ""
    teacher_normalization: str = ""
    teacher_licence: str = ""
    teacher_usage: str = ""
    unlabelled: str = ""
    prune: float = 0
    usage: str = ""
    classes: str = ""
    size: str = ""
    crop: str = "288x288"
    batch: int = 8
    epochs: float = 300
    minutes: float = 0
    lr: float = 3e-3
    normalization: str = ""
    color: str = ""
    output_name: str = ""
    threshold: float = Reading.threshold
    seed: int = 0
    threads: int = 0
    device: str = "auto"
    loss: LossOptions = field(default_factory=LossOptions)
    augmentation: Augmentation = field(default_factory=Augmentation)
    recipe: Recipe = field(default_factory=Recipe)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    unlabelled_frames: UnlabelledFrames = field(default_factory=UnlabelledFrames)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if any(side % STRIDE for side in parse_size(self.crop)):
            raise ConfigError(f"crop is {self.crop}; both sides have to be multiples of {STRIDE}")
        for name in ("batch", "epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("usage", "teacher_usage"):
            if (value := getattr(self, name)) not in USAGES:
                raise ConfigError(f"{name} is {value!r}; expected commercial or research")
        for size in filter(None, (self.size, self.teacher_size)):
            if min(parse_size(size)) < LOGITS_STRIDE:
                raise ConfigError(f"{size} is too small; expected {LOGITS_STRIDE} pixels or more")
        Reading(threshold=self.threshold)
        for name in NEED_TEACHER:
            if getattr(self, name) and not self.teacher:
                raise ConfigError(f"--{option_name(name)} is given without --teacher NETWORK")

    def command(self) -> str:
        """Return the fastseg-train command of this run, without where its files lie."""
        words = ["fastseg-train"]
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.default not in (dataclasses.MISSING, value):
                said = value if option.name == "teacher_licence" else _without_folders(value)
                words += [f"--{option_name(option.name)}", said]
        return shlex.join(words)


def option_name(field_name: str) -> str:
    """Return how a field of TrainConfig is called on the command line."""
    return field_name.replace("_", "-")


def _without_folders(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    kind, colon, location = str(value).partition(":")
    if colon and "/" in location:
        return f"{kind}:PATH"
    path = Path(str(value))
    if path.stem == "model" and path.parent.name:  # of a run
        return f"runs/{path.parent.name}/{path.name}"
    return path.name


def load_config(path: Path | None, options: Mapping[str, Any]) -> TrainConfig:
    """Read a configuration.

    Args:
        path: a TOML file, None for the defaults.
        options: top-level values that go before those of the file.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is not expected.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            is_binary = isinstance(error, UnicodeDecodeError)
            why = f"it is {file_kind(path)}, expected TOML" if is_binary else error
            raise ConfigError(f"cannot read the configuration {path}: {why}") from error
    try:
        return from_table(TrainConfig, table | dict(options), str(path or "options"))
    except TableError as error:
        raise ConfigError(str(error)) from error


def dump_config(config: TrainConfig) -> str:
    """Return the configuration as TOML that load_config reads back."""
    return tomlkit.dumps(dataclasses.asdict(config))
