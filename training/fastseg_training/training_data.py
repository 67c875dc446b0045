"""What a training sees: data in memory, those held out for validation, and batches of crops.

Shape letters: H and W pixels, h and w those of a crop, K classes.
"""

import dataclasses
import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.terminal import printable
from torch import Tensor

from fastseg import CheckpointInfo
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
from fastseg.data.file_dataset import FileDataset
from fastseg.data.loaders import DRAWN
from fastseg.own_code import import_own, own_code
from fastseg_training import distributed
from fastseg_training.batches.device_loader import DeviceBatchLoader, fits_on_device
from fastseg_training.batches.loader import BatchLoader, BatchPlan, CropFunction
from fastseg_training.batches.resident import ResizedDataset, make_resident
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.lessons import Lessons
from fastseg_training.precision import choose_device

MAX_WORKERS = 8  # threads that cut crops: each keeps some batches in memory


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
    size = look_at(config, survey, val_survey)
    if len(survey.sizes) > 1 and not config.size:  # all are seen at one, as val and the device do
        train = make_resident(
            ResizedDataset(train, size, config.fit), "resizing the training split"
        )
    pixels_K = torch.from_numpy(class_frequencies(train, len(dataset.classes)))
    return TrainingData(dataset, train, val, size, pixels_K)


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
    rest = tuple(pair for pair in dataset.pairs if not pair.name.startswith(prefix))
    return (
        dataclasses.replace(dataset, split=f"{dataset.split} without {prefix}", pairs=rest),
        dataclasses.replace(dataset, pairs=held_out),
    )


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
            print(printable(text), file=sys.stderr)
    return size


def open_loader(
    config: TrainConfig,
    samples: Samples,
    info: CheckpointInfo,
    lessons: Lessons,
    rare: tuple[int, ...],
    function: CropFunction | None,
) -> BatchLoader | DeviceBatchLoader:
    """Return batches made on the GPU where the data set fits there, else by threads.

    Args:
        config: what to vary, and how.
        samples: the training's.
        info: what pictures are normalised with.
        lessons: a teacher's.
        rare: from rare_classes().
        function: from open_function().
    """
    world_size = distributed.world_size()
    every = range(len(samples) if rare else 0)  # a look at a sample may decode it
    if config.batch % world_size:
        raise ConfigError(f"batch is {config.batch}; it has to divide by {world_size} processes")
    plan = BatchPlan(
        samples,
        config.batch,
        parse_size(config.crop),
        config.augmentation,
        config.seed,
        rank=distributed.rank(),
        world_size=world_size,
        soft=lessons.soft,
        unlabelled=lessons.unlabelled,
        unlabelled_places=lessons.places,
        rare=rare,
        with_rare=tuple(i for i in every if np.isin(samples[i].label_HW, rare).any()),
        function=function,
    )
    normalization = info.input_normalization()
    device = choose_device(distributed.local_device(config.device))
    if device.type == "cpu":  # one thread: the others train
        return BatchLoader(plan, normalization)
    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    if plan.function is None and fits_on_device(plan, device):
        return DeviceBatchLoader(plan, device, normalization)
    return BatchLoader(plan, normalization, workers)


def rare_classes(config: TrainConfig, pixels_K: Tensor) -> tuple[int, ...]:
    """Return the ids of the classes whose things are pasted.

    Raises:
        ConfigError: they are to be pasted, and there are none.
    """
    if not config.augmentation.copy_paste:
        return ()
    share_K = pixels_K / pixels_K.sum()
    rare_K = (share_K > 0) & (share_K < config.augmentation.rare_share)
    rare = tuple(rare_K.nonzero().flatten().tolist())
    if not rare:
        raise ConfigError(
            f"copy_paste: no class has less than rare_share = {config.augmentation.rare_share:g} "
            f"of the pixels; the rarest has {share_K[share_K > 0].min():.2g}"
        )
    return rare


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
