"""The configuration of a training: a frozen dataclass, read from TOML and from options."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomlkit
from fastseg_runtime.file_kind import file_kind
from fastseg_runtime.usage import USAGES

from fastseg.model import STRIDE
from fastseg_training.augment import Augmentation
from fastseg_training.distill import DistillationOptions
from fastseg_training.losses import LossOptions
from fastseg_training.recipe import Recipe

T = TypeVar("T")


class ConfigError(ValueError):
    """The configuration cannot be used; the message says what to change."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train on what.

    Attributes:
        data: a data set, as for fastseg.data.open_dataset.
        split: "train" or "trainval".
        model: a variant of FastSegNet, a backbone of others, or "package.module:factory".
        init: a checkpoint to start from, for a backbone a file of ImageNet weights; "imagenet" for
            those of an installed package, "noise" for none; "" takes a package's if it is there.
        teacher: a checkpoint of the same classes to imitate; "" for none.
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
    model: str = "base"
    init: str = ""
    teacher: str = ""
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
    threshold: float = 0.5
    seed: int = 0
    threads: int = 0
    device: str = "auto"
    loss: LossOptions = field(default_factory=LossOptions)
    augmentation: Augmentation = field(default_factory=Augmentation)
    recipe: Recipe = field(default_factory=Recipe)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if any(side % STRIDE for side in parse_size(self.crop)):
            raise ConfigError(f"crop is {self.crop}; both sides have to be multiples of {STRIDE}")
        for name in ("batch", "epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.usage not in USAGES:
            raise ConfigError(f"usage is {self.usage!r}; expected commercial or research")

    def command(self) -> str:
        """Return the fastseg-train command of this run, without where its files lie."""
        words = ["fastseg-train"]
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.default not in (dataclasses.MISSING, value):
                words += [f"--{option.name.replace('_', '-')}", _without_folders(value)]
        return " ".join(words)


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


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of "WxH".

    Raises:
        ConfigError: it is not of that form.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"cannot read the size {text!r}; write WxH in pixels, e.g. 480x360")
    return int(width), int(height)


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
    return from_table(TrainConfig, table | dict(options), str(path or "options"))


def from_table(kind: type[T], table: Mapping[str, Any], place: str) -> T:
    """Build a dataclass, nested ones too, and refuse unknown keys and wrong types."""
    hints = get_type_hints(kind)
    if unknown := sorted(table.keys() - hints.keys()):
        raise ConfigError(f"{place}: unknown keys {unknown}; valid keys are {sorted(hints)}")
    values = {key: _convert(hints[key], value, f"{place}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error


def _convert(kind: type[Any], value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_table(kind, value, place)
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or type(value) is bool:
        raise ConfigError(f"{place} is {value!r}; expected {kind.__name__}")
    return value


def dump_config(config: TrainConfig) -> str:
    """Return the configuration as TOML that load_config reads back."""
    return tomlkit.dumps(dataclasses.asdict(config))
