"""What the header of a checkpoint says of a training: what it saw, and on what terms it stands."""

import re
from pathlib import Path

import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.usage import RESEARCH, describe_usage

from fastseg import CheckpointInfo
from fastseg.data import Dataset
from fastseg.imagenet_weights import terms_in
from fastseg.network import is_factory, is_onnx, name_of
from fastseg_training.build_network import Start
from fastseg_training.config import TrainConfig
from fastseg_training.teacher import Teacher

STARTED = r"; started from [^:]*: "  # between the terms of a training and those of its start


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
            **terms_behind(teacher),
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


def terms_behind(teacher: Teacher | None) -> dict[str, str]:
    """Return what a header says of the ImageNet weights behind a teacher, nothing where none is."""
    if teacher is None or not teacher.init_licence:
        return {}
    # What starts from this network inherits the sentence, so it must be true there as well.
    among = (
        said
        if said.startswith("among its teachers")
        else f"among its teachers and theirs, {teacher.name} has {said}"
        for said in terms_in(teacher.init_licence)
    )
    return {"init_licence": "; ".join(among)}


def licence_of(start: Start, dataset: Dataset, teacher: Teacher | None, usage: str) -> str:
    """Return on what terms the weights stand: of the data, of who taught, and of the start.

    What the start says already is not said again: trainings follow each other.
    """
    said = _licence_of_training(start.config, dataset, teacher, usage)
    if start.licence in ("", said, dataset.licence, teacher.licence if teacher else ""):
        return said
    if not said or said in re.split(STARTED, start.licence):
        return start.licence
    return f"{said}; started from {name_of(start.config.init)}: {start.licence}"


def _licence_of_training(
    config: TrainConfig, dataset: Dataset, teacher: Teacher | None, usage: str
) -> str:
    same = teacher is not None and teacher.licence == dataset.licence and not config.unlabelled
    foreign = is_factory(config.teacher) or is_onnx(config.teacher)  # whose terms nobody has said
    if teacher is None or (same and (teacher.licence or not foreign)):
        return dataset.licence
    pictures = f"{dataset.name} pictures ({dataset.licence or 'no licence named'})"
    if config.unlabelled:
        said = config.unlabelled_licence or "terms not stated"
        pictures += f" and those of {Path(config.unlabelled).name} ({said})"
    allowed = "non-commercial research only" if usage == RESEARCH else describe_usage(usage)
    terms = f", on {pictures}: {allowed}; descendants inherit this"
    known = teacher.licence or "of which no licence is named"
    # Of a chain of teachers that all saw these pictures, once.
    return f"Taught by {teacher.name}, {known.removesuffix(terms)}{terms}"
