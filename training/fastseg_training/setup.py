"""From a configuration to a trainer that is ready to go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from fastseg_runtime.manifest import ClassInfo
from torch import Tensor, nn

from fastseg import VARIANTS, CheckpointInfo, FastSegNet, load_checkpoint, open_network
from fastseg.data import Dataset, MissingSplitError, Sample, open_dataset
from fastseg.data.class_list import read_classes
from fastseg_training.config import ConfigError, TrainConfig, parse_size
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.init_weights import copy_matching
from fastseg_training.loader import BatchLoader
from fastseg_training.losses import build_loss
from fastseg_training.precision import choose_device
from fastseg_training.resident import ResizedDataset, Samples, make_resident
from fastseg_training.run_folder import RunFolder
from fastseg_training.trainer import SegmentationTrainer

MAX_WORKERS = 8


def build_trainer(config: TrainConfig, folder: Path) -> SegmentationTrainer:
    """Open the data, build the network and all else that a configuration asks for.

    Args:
        config: the configuration.
        folder: the run folder.

    Raises:
        ConfigError, DataError, CheckpointError: something in it cannot be used.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    dataset = open_dataset(config.data, config.split)
    classes = choose_classes(config, dataset)
    model = build_network(config, classes)
    size = parse_size(config.size) if config.size else None
    train = make_resident(ResizedDataset(dataset, size), "reading the training split")
    info = describe(config, dataset, classes, size or image_size(train[0]))
    crop = parse_size(config.crop)
    batch_positions = config.batch * crop[0] * crop[1] // config.recipe.loss_stride**2
    return SegmentationTrainer(
        model,
        BatchLoader(
            train,
            config.batch,
            crop,
            config.augmentation,
            config.seed,
            info.mean,
            info.std,
            workers=count_workers(config),
        ),
        open_validation(config, info),
        len(classes),
        config.lr,
        config.epochs,
        minutes=config.minutes or None,
        recipe=config.recipe,
        criterion=build_loss(config.loss, count_pixels(train, len(classes)), batch_positions),
        device=config.device,
        run=RunFolder(folder, info),
    )


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


def build_network(config: TrainConfig, classes: tuple[ClassInfo, ...]) -> nn.Module:
    """Return the network to train, with the weights of --init where they fit."""
    if config.model in VARIANTS:
        model: nn.Module = FastSegNet(len(classes), config.model)
    else:
        model = open_network(config.model, classes).model
    if config.init:
        source, source_info = load_checkpoint(Path(config.init))
        same_head = [c.name for c in source_info.classes] == [c.name for c in classes]
        print(copy_matching(source, model, same_head, config.init), file=sys.stderr)
    return model


def describe(
    config: TrainConfig, dataset: Dataset, classes: tuple[ClassInfo, ...], size: tuple[int, int]
) -> CheckpointInfo:
    """Return what goes into the checkpoint's header."""
    return CheckpointInfo(
        variant=config.model,
        classes=classes,
        width=size[0],
        height=size[1],
        trained_on=f"{dataset.name} {dataset.split}",
        data_licence=dataset.licence,
        training={
            "command": config.command(),
            "epochs": config.epochs,
            "minutes": config.minutes,
            "seed": config.seed,
            "init": Path(config.init).name,
            "torch": torch.__version__,
        },
    )


def open_validation(config: TrainConfig, info: CheckpointInfo) -> EvaluationBatches | None:
    """Return the validation split, None if there is none or it is trained on."""
    if config.split == "trainval":
        return None
    try:
        dataset = open_dataset(config.data, "val")
    except MissingSplitError:
        return None
    samples = make_resident(ResizedDataset(dataset, None), "reading the validation split")
    return EvaluationBatches(samples, (info.width, info.height), info.mean, info.std)


def count_pixels(samples: Samples, num_classes: int) -> Tensor:
    """Return how many pixels each class has, (K,) float64."""
    counts_256 = torch.zeros(256, dtype=torch.float64)
    for index in range(len(samples)):
        label = torch.from_numpy(samples[index].label_HW).flatten().int()
        counts_256 += torch.bincount(label, minlength=256)
    return counts_256[:num_classes]


def image_size(sample: Sample) -> tuple[int, int]:
    """Return (width, height)."""
    height, width = sample.label_HW.shape
    return width, height


def count_workers(config: TrainConfig) -> int:
    """Return the number of threads that make batches: few where the CPU trains too."""
    if choose_device(config.device).type == "cpu":
        return 1
    return min(MAX_WORKERS, os.cpu_count() or 1)
