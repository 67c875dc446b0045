"""From a configuration to a trainer that is ready to go."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.usage import describe_usage
from torch import Tensor, nn

from fastseg import VARIANTS, CheckpointInfo, FastSegNet, open_network
from fastseg.checkpoint import AUXILIARY
from fastseg.data import Dataset
from fastseg.data.class_list import read_classes
from fastseg.imagenet_weights import terms_in
from fastseg.own_code import call_own
from fastseg.progress import show_progress
from fastseg_training import distributed
from fastseg_training.batches.resident import ResizedDataset, keep_freed_memory
from fastseg_training.build_network import IMAGENET, Start, build_network, choose_start
from fastseg_training.callbacks import Callback
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.distill import DistillationLoss
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.header import describe
from fastseg_training.lessons import give_lessons
from fastseg_training.logit_shift import MOST_PICTURES, adjusted
from fastseg_training.losses import UNDONE, build_loss, enet_weights
from fastseg_training.optimisation import freeze, make_optimizer, mixed
from fastseg_training.precision import choose_device, choose_precision
from fastseg_training.run_folder import RunFolder
from fastseg_training.selection import Selection
from fastseg_training.teacher import open_teacher
from fastseg_training.trainer import SegmentationTrainer
from fastseg_training.training_data import (
    TrainingData,
    open_data,
    open_function,
    open_loader,
    rare_classes,
)


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
    classes = _choose_classes(config, dataset)
    teacher = open_teacher(config, classes, meant_for)
    start = Start(config)
    info = describe(start, dataset, classes, meant_for, teacher)
    if distributed.rank() == 0:
        print(f"weights of this training: {describe_usage(info.usage)}", file=sys.stderr)
    model = build_network(start, classes, meant_for, info.normalization)
    # All this comes before a teacher labels, for hours perhaps: what is wrong with it is said now.
    check_recipe(start, model)
    rare, function = rare_classes(config, pixels_K), open_function(config)
    mean, info = mean_with(config, model, info)
    adjust = _in_turn(_mixture(start, model), mean, adjustment(config, model, data, info))
    callbacks = [_make_callback(config.callback)] if config.callback else []
    undone = _weights_to_undo(config, model, pixels_K)
    criterion = _choose_loss(config, pixels_K, classes)
    samples = ResizedDataset(dataset, meant_for, config.fit)
    lessons = give_lessons(config, teacher, samples, meant_for)
    return SegmentationTrainer(
        model,
        open_loader(config, data.train, info, lessons, rare, function),
        data.validation(info),
        len(classes),
        config.lr,
        config.epochs,
        minutes=config.minutes or None,
        recipe=config.recipe,
        criterion=criterion,
        class_weights=undone,
        taught=teacher.class_map.partly_taught if teacher else (),
        adjust=adjust,
        distillation=DistillationLoss(**dataclasses.asdict(config.distillation)),
        device=config.device,
        run=RunFolder(folder, info),
        output_name=config.output_name,
        threshold=config.threshold,
        selection=Selection(config.keep_best, config.patience),
        checkpoint_every=config.checkpoint_every,
        freeze=_parts_of(config.freeze),
        callbacks=callbacks,
    )


def check_recipe(start: Start, model: nn.Module) -> None:
    """Refuse a precision that this device has not, and names of modules that the network has not.

    Raises:
        ConfigError: --freeze or rates name one, or it would hold noise, or the precision is none.
    """
    config = start.config
    recipe, device = config.recipe, distributed.local_device(config.device)
    choose_precision(recipe.precision, choose_device(device))
    try:
        freeze(model, _parts_of(config.freeze))
        make_optimizer(model, config.lr, recipe.weight_decay, recipe.backbone_factor, recipe.rates)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    held = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    if held and (noise := [name for name in _started_anew(start, model) if name in held]):
        raise ConfigError(
            f"--freeze {config.freeze} would hold noise, such as {noise[0]}: give --init a trained "
            "network of these classes, install the weights of ImageNet for its backbone, or leave "
            "it out"
        )


def _started_anew(start: Start, model: nn.Module) -> list[str]:
    """Return the tensors of one of our networks that --init has not, before its first step.

    What is pruned, or brings weights of its own, has none that are known to be noise.
    """
    config = start.config
    if config.model not in VARIANTS or config.prune:
        return []
    state = model.state_dict()
    if start.network is None:
        learnt = "backbone." if start.file or choose_start(config) == IMAGENET else ()
        return [name for name in state if not name.startswith(learnt)]
    source = start.network.model.state_dict()
    return [n for n, x in state.items() if not (n in source and torch.equal(source[n], x))]


def _parts_of(spec: str) -> list[str]:
    """Return the names in --freeze."""
    return [name.strip() for name in spec.split(",")] if spec else []


def _make_callback(spec: str) -> Callback:
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


def _choose_loss(
    config: TrainConfig, pixels_K: Tensor, classes: tuple[ClassInfo, ...]
) -> nn.Module:
    """Return the loss for so many pixels of each class.

    Raises:
        ConfigError: a class weight is not that of a class.
    """
    width, height = parse_size(config.crop)  # the main loss sees them at a stride
    positions = config.batch * width * height // config.recipe.loss_stride**2
    batch_pixels = positions // distributed.world_size()  # of a process's part
    try:
        names = [entry.name for entry in classes]
        return build_loss(config.loss, pixels_K, batch_pixels, names)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _weights_to_undo(config: TrainConfig, model: nn.Module, pixels_K: Tensor) -> Tensor | None:
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


_Change = Callable[[nn.Module], nn.Module]  # of the averaged network, in the end


def _in_turn(*changes: _Change | None) -> _Change | None:
    """Return one change that makes those that are not None, None where all are."""
    made = [change for change in changes if change is not None]
    if not made:
        return None
    return lambda network: functools.reduce(lambda changed, change: change(changed), made, network)


def _mixture(start: Start, model: nn.Module) -> _Change | None:
    """Return what mixes the weights of --init into the averaged ones, None for nothing.

    Args:
        start: what the model was made of.
        model: the network before its first step.

    Raises:
        ConfigError: not all of it comes from --init; the rest would be noise in the end.
    """
    share = start.config.recipe.start_share
    if not share:
        return None
    source = start.network.model.state_dict() if start.network else {}
    begun = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    anew = [
        name
        for name, tensor in begun.items()
        if not name.startswith(AUXILIARY)
        and not (name in source and torch.equal(source[name], tensor))
    ]
    if anew:
        raise ConfigError(
            "start_share mixes in the network that --init names, which has to be the one that is "
            f"trained, of {', '.join(VARIANTS)}, with the same classes and widths; it has no "
            f"{anew[0]}"
        )
    return lambda averaged: mixed(averaged, begun, share)


def mean_with(
    config: TrainConfig, model: nn.Module, info: CheckpointInfo
) -> tuple[_Change | None, CheckpointInfo]:
    """Return what takes the mean with networks that are there, and the header that says so.

    Raises:
        ConfigError: one is of another shape or not finished, or stands on other terms.
        CheckpointError: one cannot be opened.
    """
    others = [open_network(path) for path in config.recipe.mean_with]
    if not others:
        return None, info
    shapes = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if not name.startswith(AUXILIARY)
    }
    for other in others:
        state = other.model.state_dict()
        same = shapes == {name: tensor.shape for name, tensor in state.items()}
        if not other.info.training.get("finished", True):
            raise ConfigError(
                f"mean_with is for finished trainings; {other.name} was saved in the midst of one: "
                "take model.safetensors of a finished run (--resume finishes one)"
            )
        kept = ("classes", "width", "height", "fit", "normalization", "data_licence", "usage")
        differs = [name for name in kept if getattr(other.info, name) != getattr(info, name)]
        if differs or not same:
            raise ConfigError(
                f"mean_with is for networks of the same recipe and start and another seed; "
                f"{other.name} has other {', '.join(differs) or 'weights'}"
            )

    def take_mean(averaged: nn.Module) -> nn.Module:
        for count, other in enumerate(others, start=2):
            state = {**averaged.state_dict(), **other.model.state_dict()}
            averaged = mixed(averaged, state, 1 / count)
        return averaged

    training = info.training | {"mean_with": [other.sha256 for other in others]}
    behind = [each.training.get("init_licence", "") for each in (info, *(o.info for o in others))]
    if said := "; ".join(dict.fromkeys(terms_in("; ".join(filter(None, behind))))):
        training["init_licence"] = said
    return take_mean, dataclasses.replace(info, training=training)


def adjustment(
    config: TrainConfig, model: nn.Module, data: TrainingData, info: CheckpointInfo
) -> _Change | None:
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


def _choose_classes(config: TrainConfig, dataset: Dataset) -> tuple[ClassInfo, ...]:
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
