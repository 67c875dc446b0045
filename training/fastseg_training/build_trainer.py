"""From a configuration to a trainer that is ready to go."""

import dataclasses
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.usage import RESEARCH, describe_usage
from torch import Tensor, nn

from fastseg import VARIANTS, CheckpointInfo, FastSegNet
from fastseg.data import (
    Array,
    DataError,
    Dataset,
    MissingSplitError,
    Samples,
    Survey,
    class_frequencies,
    obstacles,
    open_dataset,
)
from fastseg.data.class_list import read_classes
from fastseg.data.file_dataset import FileDataset
from fastseg.data.loaders import DRAWN
from fastseg.network import name_of
from fastseg.own_code import call_own, import_own, own_code
from fastseg.progress import show_progress
from fastseg_training import distributed
from fastseg_training.build_network import Start, build_network
from fastseg_training.callbacks import Callback
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.device_loader import DeviceBatchLoader, fits_on_device
from fastseg_training.distill import DistillationLoss
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.lessons import Lessons, give_lessons
from fastseg_training.loader import BatchLoader, BatchPlan, CropFunction
from fastseg_training.logit_shift import MOST_PICTURES, adjusted
from fastseg_training.losses import UNDONE, build_loss, enet_weights
from fastseg_training.optimisation import freeze, make_optimizer
from fastseg_training.precision import choose_device
from fastseg_training.resident import ResizedDataset, keep_freed_memory, make_resident
from fastseg_training.run_folder import RunFolder
from fastseg_training.selection import Selection
from fastseg_training.teacher import Teacher, open_teacher
from fastseg_training.trainer import SegmentationTrainer

STARTED = r"; started from [^:]*: "  # between the terms of a training and those of its start
MAX_WORKERS = 8  # threads that cut crops: each keeps some batches in memory


def build_trainer(config: TrainConfig, folder: Path) -> SegmentationTrainer:
    """Open the data, build the network and all else that a configuration asks for.

    Raises:
        ConfigError, DataError, CheckpointError: something in it cannot be used.
    """
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    data = open_data(config)
    dataset, meant_for, pixels_K = data.dataset, data.size, data.pixels_K
    classes = choose_classes(config, dataset)
    teacher = open_teacher(config, classes, meant_for)
    start = Start(config)
    info = describe(start, dataset, classes, meant_for, teacher)
    if distributed.rank() == 0:
        print(f"weights of this training: {describe_usage(info.usage)}", file=sys.stderr)
    model = build_network(start, classes, meant_for, info.normalization)
    check_parts(config, model)
    lessons = give_lessons(config, teacher, resized(config, dataset), meant_for)
    width, height = parse_size(config.crop)  # the main loss sees them at a stride
    positions = config.batch * width * height // config.recipe.loss_stride**2
    return SegmentationTrainer(
        model,
        open_loader(config, data.train, info, lessons, pixels_K),
        data.validation(info),
        len(classes),
        config.lr,
        config.epochs,
        minutes=config.minutes or None,
        recipe=config.recipe,
        criterion=choose_loss(config, pixels_K, positions // distributed.world_size(), classes),
        class_weights=weights_to_undo(config, model, pixels_K),
        taught=teacher.class_map.partly_taught if teacher else (),
        adjust=adjustment(config, model, data, info),
        distillation=DistillationLoss(**dataclasses.asdict(config.distillation)),
        device=config.device,
        run=RunFolder(folder, info),
        output_name=config.output_name,
        threshold=config.threshold,
        selection=Selection(config.keep_best, config.patience),
        checkpoint_every=config.checkpoint_every,
        freeze=parts_of(config.freeze),
        callbacks=[make_callback(config.callback)] if config.callback else [],
    )


def check_parts(config: TrainConfig, model: nn.Module) -> None:
    """Refuse names of modules that the network has not, before hours are spent on its teacher.

    Raises:
        ConfigError: --freeze or rates name one.
    """
    recipe = config.recipe
    try:
        freeze(model, parts_of(config.freeze))
        make_optimizer(model, config.lr, recipe.weight_decay, recipe.backbone_factor, recipe.rates)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def parts_of(spec: str) -> list[str]:
    """Return the names in --freeze."""
    return [name.strip() for name in spec.split(",")] if spec else []


def make_callback(spec: str) -> Callback:
    """Return what package.module:factory makes.

    Raises:
        ConfigError: it is no Callback.
        CheckpointError: it cannot be imported or called.
    """
    made = call_own(spec)
    if not isinstance(made, Callback):
        raise ConfigError(
            f"{spec} returned {type(made).__name__}; expected a fastseg_training.Callback, with "
            "on_start, on_log and on_end"
        )
    return made


def choose_loss(
    config: TrainConfig, pixels_K: Tensor, batch_pixels: int, classes: tuple[ClassInfo, ...]
) -> nn.Module:
    """Return the loss for so many pixels of each class and of a process's part of a batch.

    Raises:
        ConfigError: a class weight is not that of a class.
    """
    try:
        names = [entry.name for entry in classes]
        return build_loss(config.loss, pixels_K, batch_pixels, names)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def weights_to_undo(config: TrainConfig, model: nn.Module, pixels_K: Tensor) -> Tensor | None:
    """Return the class weights that the averaged network is to be rid of, None for none.

    Raises:
        ConfigError: the network's classifier is not known.
    """
    if config.loss.class_weights != UNDONE:
        return None
    if not isinstance(model, FastSegNet):
        raise ConfigError(
            f"class_weights {UNDONE!r} is for {', '.join(VARIANTS)}, not {config.model}; choose "
            "'enet'"
        )
    return enet_weights(pixels_K, config.loss.enet_constant)


def adjustment(
    config: TrainConfig, model: nn.Module, data: "TrainingData", info: CheckpointInfo
) -> Callable[[nn.Module], nn.Module] | None:
    """Return what shifts the averaged network's logits in the end, None for nothing.

    Raises:
        ConfigError: the network's classifier is not known.
    """
    if not config.recipe.adjust_logits:
        return None
    if not isinstance(model, FastSegNet):
        raise ConfigError(
            f"adjust_logits is for {', '.join(VARIANTS)}, not {config.model}; leave it out"
        )

    def adjust(averaged: nn.Module) -> nn.Module:
        places = np.unique(np.linspace(0, len(data.train) - 1, MOST_PICTURES).astype(int))
        picked = [data.train[place] for place in places.tolist()]
        batches = EvaluationBatches(picked, data.size, info.input_normalization())
        return adjusted(averaged, show_progress(batches, "adjusting logits", len(picked)))

    return adjust


def open_loader(
    config: TrainConfig,
    samples: Samples,
    info: CheckpointInfo,
    lessons: Lessons,
    pixels_K: Tensor,
) -> BatchLoader | DeviceBatchLoader:
    """Return batches made on the GPU where the data set fits there, else by threads."""
    world_size = distributed.world_size()
    if config.batch % world_size:
        raise ConfigError(f"batch is {config.batch}; it has to divide by {world_size} processes")
    plan = BatchPlan(
        samples,
        config.batch,
        parse_size(config.crop),
        config.augmentation,
        config.seed,
        distributed.rank(),
        world_size,
        lessons.soft,
        lessons.unlabelled,
        lessons.places,
        *find_rare(config, samples, pixels_K),
        open_function(config),
    )
    normalization = info.input_normalization()
    device = choose_device(distributed.local_device(config.device))
    if device.type == "cpu":  # one thread: the others train
        return BatchLoader(plan, normalization)
    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    if plan.function is None and fits_on_device(plan, device):
        return DeviceBatchLoader(plan, device, normalization)
    return BatchLoader(plan, normalization, workers)


def find_rare(
    config: TrainConfig, samples: Samples, pixels_K: Tensor
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the classes to paste and the indices of the samples that have some.

    Raises:
        ConfigError: they are to be pasted, and there are none.
    """
    if not config.augmentation.copy_paste:
        return (), ()
    share_K = pixels_K / pixels_K.sum()
    rare_K = (share_K > 0) & (share_K < config.augmentation.rare_share)
    rare = tuple(rare_K.nonzero().flatten().tolist())
    if not rare:
        raise ConfigError(
            f"copy_paste: no class has less than rare_share = {config.augmentation.rare_share:g} "
            f"of the pixels; the rarest has {share_K[share_K > 0].min():.2g}"
        )
    indices = range(len(samples))
    return rare, tuple(i for i in indices if np.isin(samples[i].label_HW, rare).any())


def open_function(config: TrainConfig) -> CropFunction | None:
    """Return the user's function that varies crops, None for none.

    Raises:
        ConfigError: soft labels would not follow what it does.
        CheckpointError: it cannot be imported.
    """
    spec = config.augmentation.function
    if not spec:
        return None
    if config.teacher:
        raise ConfigError(f"{spec} may move pixels, and the teacher's labels would not follow")
    function = import_own(spec)

    def checked(image_hw3: Array, label_hw: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        with own_code(spec, function):
            image, label = (np.asarray(made) for made in function(image_hw3, label_hw, rng))
        for name, made, given in (("picture", image, image_hw3), ("labels", label, label_hw)):
            if made.dtype != given.dtype or made.shape != given.shape:
                raise ConfigError(
                    f"{spec} returned {made.dtype} {made.shape} as {name}; expected {given.dtype} "
                    f"{given.shape}"
                )
        return image, label

    return checked


def choose_classes(config: TrainConfig, dataset: Dataset) -> tuple[ClassInfo, ...]:
    """Return the data set's classes, or as many others that --classes names."""
    if not config.classes:
        return dataset.classes
    classes, _ = read_classes(Path(config.classes))
    if len(classes) != len(dataset.classes):
        raise ConfigError(
            f"{config.classes} names {len(classes)} classes, {config.data} has "
            f"{len(dataset.classes)}; they have to be the same ones in the same order"
        )
    return classes


def describe(
    start: Start,
    dataset: Dataset,
    classes: tuple[ClassInfo, ...],
    size: tuple[int, int],
    teacher: Teacher | None,
) -> CheckpointInfo:
    """Return what goes into the checkpoint's header."""
    config, usage = start.config, start.usage(dataset.name)
    return CheckpointInfo(
        variant=config.model,
        classes=classes,
        width=size[0],
        height=size[1],
        trained_on=f"{dataset.name} {dataset.split}",
        data_licence=licence_of(start, dataset, teacher, usage),
        usage=usage,
        training={
            "command": config.command(),
            "data": config.dataset(),  # where fastseg-export looks for images unless told otherwise
            "epochs": config.epochs,
            "minutes": config.minutes,
            "seed": config.seed,
            **start.described(),
            "teacher": name_of(config.teacher),
            "teacher_sha256": teacher.identity["sha256"] if teacher else "",
            "torch": torch.__version__,
        },
        pruned=start.is_pruned,
        normalization=start.normalization(),
        output_name=config.output_name,
        threshold=config.threshold,
        fit=config.fit,
    )


def licence_of(start: Start, dataset: Dataset, teacher: Teacher | None, usage: str) -> str:
    """Return on what terms the weights stand: of the data, of who taught, and of the start.

    What the start says already is not said again: trainings follow each other.
    """
    said = _licence_of_training(start.config, dataset, teacher, usage)
    if start.licence in ("", said, dataset.licence):
        return said
    if not said or said in re.split(STARTED, start.licence):
        return start.licence
    return f"{said}; started from {name_of(start.config.init)}: {start.licence}"


def _licence_of_training(
    config: TrainConfig, dataset: Dataset, teacher: Teacher | None, usage: str
) -> str:
    if teacher is None or teacher.licence == dataset.licence:
        return dataset.licence
    pictures = f"{dataset.name} pictures ({dataset.licence or 'no licence named'})"
    if config.unlabelled:
        pictures += f" and those of {Path(config.unlabelled).name} (no licence named)"
    terms = "non-commercial research only" if usage == RESEARCH else describe_usage(usage)
    return (
        f"Taught by {teacher.name}, {teacher.licence or 'of which no licence is named'}, on "
        f"{pictures}: {terms}; descendants inherit this"
    )


def hold_out(dataset: Dataset, prefix: str) -> tuple[Dataset, Dataset | None]:
    """Return the samples to train on and those to validate on, whose names start with the prefix.

    Raises:
        ConfigError: one of the two would be empty, or the data are no files.
    """
    if not prefix:
        return dataset, None
    if not isinstance(dataset, FileDataset):
        raise ConfigError(f"holdout goes by names of files; {dataset.name} has none")
    held_out = tuple(pair for pair in dataset.pairs if pair.name.startswith(prefix))
    if not 0 < len(held_out) < len(dataset):
        raise ConfigError(
            f"holdout is {prefix!r}: {len(held_out)} of {len(dataset)} names start so, such as "
            f"{dataset.pairs[0].name!r}; expected some and not all"
        )
    rest = tuple(pair for pair in dataset.pairs if pair not in held_out)
    return (
        dataclasses.replace(dataset, split=f"{dataset.split} without {prefix}", pairs=rest),
        dataclasses.replace(dataset, pairs=held_out),
    )


@dataclass(frozen=True)
class TrainingData:
    """What a training has to do with.

    Attributes:
        dataset: what is trained on, as it is on disk.
        train: the same at the network's size, in memory if it fits.
        val: what is validated on; None for nothing.
        size: of the network's input, (width, height).
        pixels_K: pixels of each class in train.
    """

    dataset: Dataset
    train: Samples
    val: Samples | None
    size: tuple[int, int]
    pixels_K: Tensor

    def validation(self, info: CheckpointInfo) -> EvaluationBatches | None:
        """Return val as the network of a checkpoint takes it."""
        if self.val is None:
            return None
        normalization = info.input_normalization()
        return EvaluationBatches(self.val, self.size, normalization, info.input_spec())


def open_data(config: TrainConfig) -> TrainingData:
    """Read the data of a training.

    Raises:
        ConfigError, DataError: they cannot be trained on.
    """
    dataset, held_out = hold_out(open_dataset(config.dataset(), config.split), config.holdout)
    survey, val_survey = Survey(dataset), open_validation(config, held_out)
    train = make_resident(resized(config, survey), "reading the training split")
    val = None
    if val_survey is not None:
        val = make_resident(val_survey, "reading the validation split")
    pixels_K = torch.from_numpy(class_frequencies(train, len(dataset.classes)))
    return TrainingData(dataset, train, val, look_at(config, survey, val_survey), pixels_K)


def resized(config: TrainConfig, samples: Samples) -> ResizedDataset:
    """Return samples at the size that was asked for, else each at its own."""
    return ResizedDataset(samples, parse_size(config.size) if config.size else None, config.fit)


def open_validation(config: TrainConfig, held_out: Dataset | None) -> Survey | None:
    """Return what is held out, else the validation split; None for none, or one trained on."""
    if held_out is None and config.split == "trainval":
        return None
    try:
        return Survey(held_out or open_dataset(config.dataset(), "val"))
    except MissingSplitError:
        return None


def look_at(config: TrainConfig, train: Survey, val: Survey | None) -> tuple[int, int]:
    """Refuse data that `--check` refuses, say what it says, and return the network's size.

    Raises:
        DataError: the data are not ready to train.
    """
    surveys = [train] if val is None else [train, val]
    for survey in surveys:
        survey.complete()
    if wrong := list(obstacles(config.data, train, val, config.allow_missing_classes)):
        raise DataError("\n".join(f"{config.data}: {text}" for text in wrong))
    size = parse_size(config.size) if config.size else train.most_frequent_size()
    if distributed.rank() == 0 and train.dataset.name not in DRAWN:
        said = [text for survey in surveys for text in survey.remarks(size, config.fit)]
        said += [] if config.size else [train.input_size()]
        said += train.shared_with(val) if val else ["no split val: nothing will be scored"]
        for text in dict.fromkeys(said):
            print(text, file=sys.stderr)
    return size
