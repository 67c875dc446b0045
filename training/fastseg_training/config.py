"""The configuration of a training: a frozen dataclass, read from TOML and from options."""

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tomlkit
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.manifest import FITS
from fastseg_runtime.bundle.usage import USAGES
from typer import Option

from fastseg import VARIANTS
from fastseg.data import MOST_BROKEN, ReadOptions, describe_kinds, with_options
from fastseg.fastsegnet import LOGITS_STRIDE, STRIDE
from fastseg.fitting import LETTERBOX, STRETCH
from fastseg.outputs import Reading
from fastseg_training.batches.augment import Augmentation
from fastseg_training.distill import DistillationOptions
from fastseg_training.losses import LossOptions
from fastseg_training.optimisation import Recipe

SHIPPED = Path(__file__).parent / "configs"
CONFIG = "config.toml"  # in a run's folder: all that was asked for


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
    """What to train on what; the help of fastseg-train is that of the fields with an `Option`.

    "" and 0 stand for what the help has in brackets, or for none.

    Attributes:
        holdout: pictures whose names start so are not trained on and are validated on instead of
            the validation split: a drive of a data set that has several; "" for none.
        normalization: of a network of one's own: "imagenet", "unit", "centred" or a TOML file;
            "" for what --init was trained with, else "centred".
        color: of a network of one's own: "rgb" or "bgr"; "" for what the normalisation says.
        output_name: of a network of one's own with several outputs, the path of its logits.
        threshold: of a network of one's own with one logit, the probability above which it means
            the second class.
    """

    data: Annotated[str, Option(metavar="KIND:PATH", help=describe_kinds())] = ""
    split: Annotated[
        str, Option(help="train or trainval; --evaluate: val or test. [train; test]")
    ] = "train"
    holdout: str = ""
    image_range: Annotated[
        str,
        Option(
            metavar="LOW:HIGH",
            help="Stored values of pictures that are black and white, such as 0:4095. [8 bits: "
            "all; 16 bits: all]",
        ),
    ] = ""
    split_by: Annotated[
        str,
        Option(
            metavar="folder|REGEX",
            help="Data without splits: what tells the sequence of a picture, its folder or what "
            "of its name matches, such as '^[^_]+'. [each stands alone]",
        ),
    ] = ""
    skip_broken: Annotated[
        bool,
        Option("--skip-broken", help="Leave out files and annotations that cannot be read."),
    ] = False
    most_broken: Annotated[
        float, Option(metavar="SHARE", help="How many may be left out, of a few at least one.")
    ] = MOST_BROKEN
    allow_missing_classes: Annotated[
        bool,
        Option(
            "--allow-missing-classes", help="Train though a class has no pixel to learn it from."
        ),
    ] = False
    model: Annotated[str, Option(help=f"{', '.join(VARIANTS)} or package.module:factory.")] = "base"
    init: Annotated[
        str,
        Option(
            metavar="CHECKPOINT",
            help="Start from these weights, of a backbone too; imagenet or noise. [lite: imagenet "
            "if installed]",
        ),
    ] = ""
    freeze: Annotated[
        str,
        Option(
            metavar="PARTS",
            help="Do not train these, nor move their batch-norm statistics: backbone, or names of "
            "modules with commas between, such as stem,stage_8.",
        ),
    ] = ""
    teacher: Annotated[
        str,
        Option(
            metavar="NETWORK",
            help="Imitate this network: a checkpoint, package.module:factory or an ONNX file. What "
            "it thinks of each picture is kept in $FASTSEG_CACHE/soft-labels.",
        ),
    ] = ""
    teacher_weights: Annotated[str, Option(metavar="FILE", help="State dict of its factory.")] = ""
    teacher_map: Annotated[
        str,
        Option(
            metavar="TOML",
            help="Which of its classes make up those of the data, e.g. cityscapes-to-camvid. [its "
            "classes are the data's]",
        ),
    ] = ""
    teacher_size: Annotated[
        str,
        Option(
            metavar="WxH", help="What pictures are enlarged to for it. [its own size, else theirs]"
        ),
    ] = ""
    teacher_normalization: Annotated[
        str,
        Option(
            metavar="NAME|TOML",
            help="What it was trained with: imagenet, unit, centred or a file. [centred]",
        ),
    ] = ""
    teacher_output_name: Annotated[
        str, Option(metavar="NAME", help="Which of its outputs are the logits: out, 1, aux.0.")
    ] = ""
    teacher_licence: Annotated[
        str,
        Option(
            metavar="TEXT",
            help="On what terms it stands, e.g. 'trained on Cityscapes (non-commercial)'; the "
            "student's header says so. [what a checkpoint says]",
        ),
    ] = ""
    teacher_usage: Annotated[
        str,
        Option(
            metavar="WHAT",
            help="commercial or research: what it allows. [what its weights say, else research]",
        ),
    ] = ""
    unlabelled: Annotated[
        str, Option(metavar="FOLDER|VIDEO", help="More pictures, which it alone labels.")
    ] = ""
    unlabelled_licence: Annotated[
        str,
        Option(
            metavar="TEXT",
            help="On what terms those stand, e.g. 'Udacity, MIT'; the student's header says so.",
        ),
    ] = ""
    prune: Annotated[
        float,
        Option(metavar="SHARE", help="Save this share of the MACs of --init by removing channels."),
    ] = 0
    usage: Annotated[
        str,
        Option(
            metavar="WHAT",
            help="commercial or research: what your own data allow. Known data, --init and "
            "--teacher may say less, and then do.",
        ),
    ] = ""
    classes: Annotated[
        str, Option(metavar="FILE", help="Other names and colours of the classes.")
    ] = ""
    size: Annotated[str, Option(metavar="WxH", help="Resize pictures. [their own size]")] = ""
    fit: Annotated[
        str,
        Option(
            metavar="HOW",
            help="stretch or letterbox: pictures of another aspect than --size keep theirs, "
            "between bars that teach nothing. [stretch; --evaluate: as the network says]",
        ),
    ] = STRETCH
    crop: Annotated[
        str, Option(metavar="WxH", help=f"Of training crops, multiples of {STRIDE}.")
    ] = "288x288"
    batch: Annotated[int, Option(help="Crops per step.")] = 8
    epochs: Annotated[
        float, Option("--epochs", "--finetune-epochs", help="Passes over the data.")
    ] = 300
    minutes: Annotated[
        float,
        Option(
            help="Stop by the clock instead, which counts steps, waits for batches and "
            "evaluations; reading the data before and the last evaluation come on top."
        ),
    ] = 0
    lr: Annotated[float, Option(help="Peak learning rate.")] = 3e-3
    keep_best: Annotated[
        bool,
        Option(
            help="Keep the weights with the best validation mIoU too, as best.safetensors: chosen "
            "on that split, they score better there than elsewhere."
        ),
    ] = False
    patience: Annotated[
        int, Option(help="End after so many evaluations without a better validation mIoU. [never]")
    ] = 0
    checkpoint_every: Annotated[
        float, Option(metavar="EPOCHS", help="Keep the weights of each such epoch too. [none]")
    ] = 0
    callback: Annotated[
        str,
        Option(
            metavar="PACKAGE.MODULE:FACTORY",
            help="Of a fastseg_training.Callback, which hears of the training.",
        ),
    ] = ""
    normalization: str = ""
    color: str = ""
    output_name: str = ""
    threshold: float = Reading.threshold
    seed: Annotated[int, Option(help="Of weights, order, variation. [0]")] = 0
    threads: Annotated[int, Option(help="CPU threads. [all]")] = 0
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:1.")] = "auto"
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
        for name in ("minutes", "seed", "threads", "patience", "checkpoint_every"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("usage", "teacher_usage"):
            if (value := getattr(self, name)) not in USAGES:
                raise ConfigError(f"{name} is {value!r}; expected commercial or research")
        if self.fit not in FITS:
            raise ConfigError(f"fit is {self.fit!r:.80}; expected {' or '.join(FITS)}")
        if self.holdout and self.split == "trainval":
            raise ConfigError("holdout takes from split train what is validated on, not trainval")
        if self.fit == LETTERBOX and not self.size:
            raise ConfigError("letterbox needs the size to bring pictures to: --size WxH")
        if self.fit == LETTERBOX and self.teacher:
            raise ConfigError("a teacher labels whole pictures, without bars; leave letterbox out")
        if self.unlabelled_licence and not self.unlabelled:
            raise ConfigError("--unlabelled-licence is given without --unlabelled FOLDER")
        if self.unlabelled and self.batch < 2:
            raise ConfigError("--unlabelled needs a --batch of 2 or more")
        for size in filter(None, (self.size, self.teacher_size)):
            if min(parse_size(size)) < LOGITS_STRIDE:
                raise ConfigError(f"{size} is too small; expected {LOGITS_STRIDE} pixels or more")
        Reading(threshold=self.threshold)
        for name, value in vars(self).items():
            needs_teacher = name.startswith("teacher_") or name == "unlabelled"
            if needs_teacher and value and not self.teacher:
                raise ConfigError(f"--{option_name(name)} is given without --teacher NETWORK")

    def dataset(self) -> str:
        """Return the data's string with all that is said of how to read them."""
        skipped = self.most_broken if self.skip_broken else 0
        return with_options(self.data, ReadOptions(self.image_range, self.split_by, skipped))

    def command(self) -> str:
        """Return the fastseg-train command of this run, without where its files lie.

        What no option says makes it name the run's own configuration.
        """
        default, words, needs_file = TrainConfig(), ["fastseg-train"], False
        for name, value in vars(self).items():
            if value == getattr(default, name):
                continue
            if name == "holdout" or dataclasses.is_dataclass(value):
                needs_file = True
            elif value is True:
                words.append(f"--{option_name(name)}")
            else:
                said = value if name.endswith("_licence") else _without_folders(value)
                words += [f"--{option_name(name)}", said]
        return shlex.join(words + ["--config", CONFIG] * needs_file)


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


def find_config(spec: Path) -> Path:
    """Return a file, or the configuration that ships under that name, such as camvid-small.

    Raises:
        ConfigError: there is neither.
    """
    if spec.is_file() or spec.parent != Path():
        return spec
    shipped = SHIPPED / f"{spec.name.removesuffix('.toml')}.toml"
    if not shipped.is_file():
        names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.toml")))
        raise ConfigError(f"no file {spec}, and no configuration of that name: there are {names}")
    return shipped


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
