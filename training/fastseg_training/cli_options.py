"""The options of fastseg-train, with the help that teaches them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fastseg import VARIANTS
from fastseg.command_options import (
    ColorOption,
    NormalizationOption,
    OutputNameOption,
    ThresholdOption,
)
from fastseg.data import describe_kinds
from fastseg_training.config import TrainConfig
from fastseg_training.losses import LOSSES


@dataclass(frozen=True)
class Options:
    """Train a segmentation network on labelled images, offline, into runs/NAME.

    \b
    fastseg-train --data synthetic --model nano --minutes 2    the shortest way
    fastseg-train --evaluate runs/synthetic-nano/model.safetensors --data synthetic
    """

    check: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Look at a data set and stop."),
    ] = None
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Score a network on --data."),
    ] = None
    tta: Annotated[bool, typer.Option(help="--evaluate on mirror images and three scales.")] = False
    confusion: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="--evaluate: draw the confusion matrix."),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(metavar="KIND:PATH", help=describe_kinds()),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(help="train or trainval; --evaluate: val or test [test]."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(VARIANTS)} or package.module:factory. [{TrainConfig.model}]",
        ),
    ] = None
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Start from these weights; imagenet or noise. [lite: imagenet if installed]",
        ),
    ] = None
    prune: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Save this share of the MACs of --init by removing channels."
        ),
    ] = None
    usage: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="commercial or research: what your own data allow. Known data, --init and "
            "--teacher may say less, and then do.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Other names and colours of the classes."),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Resize pictures. [their own size]"),
    ] = None
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Imitate this network: a checkpoint, package.module:factory or an ONNX file. What "
            "it thinks of each picture is kept in $FASTSEG_CACHE/soft-labels.",
        ),
    ] = None
    teacher_weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="State dict of its factory."),
    ] = None
    teacher_map: Annotated[
        str | None,
        typer.Option(
            metavar="TOML",
            help="Which of its classes make up those of the data, e.g. cityscapes-to-camvid.",
        ),
    ] = None
    teacher_size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="What pictures are enlarged to for it. [its own size, else theirs]"
        ),
    ] = None
    teacher_normalization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|TOML",
            help="What it was trained with: imagenet, unit, centred or a file. [centred]",
        ),
    ] = None
    teacher_licence: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="On what terms it stands, e.g. 'trained on Cityscapes (non-commercial)'; the "
            "student's header says so.",
        ),
    ] = None
    teacher_usage: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="commercial or research: what it allows. [research]"),
    ] = None
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|VIDEO", help="More pictures, which it alone labels."),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="--evaluate: its weights."),
    ] = None
    normalization: NormalizationOption = None
    color: ColorOption = None
    output_name: OutputNameOption = None
    threshold: ThresholdOption = None
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="A file of all options; those given go first. In it [loss] formula is a sum of "
            f"{', '.join(LOSSES)}, such as ce+0.5*dice.",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        typer.Option(
            "--epochs", "--finetune-epochs", help=f"Passes over the data. [{TrainConfig.epochs}]"
        ),
    ] = None
    minutes: Annotated[float | None, typer.Option(help="Stop by the clock instead.")] = None
    batch: Annotated[int | None, typer.Option(help=f"Crops per step. [{TrainConfig.batch}]")] = None
    crop: Annotated[
        str | None,
        typer.Option(metavar="WxH", help=f"Of training crops. [{TrainConfig.crop}]"),
    ] = None
    lr: Annotated[float | None, typer.Option(help=f"Peak learning rate. [{TrainConfig.lr}]")] = None
    seed: Annotated[
        int | None, typer.Option(help=f"Of weights, order, variation. [{TrainConfig.seed}]")
    ] = None
    threads: Annotated[int | None, typer.Option(help="CPU threads. [all]")] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1. [auto]")] = None
    name: Annotated[
        str | None,
        typer.Option(help="Folder runs/NAME. [the --config's, else DATA-MODEL]"),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace the run.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
