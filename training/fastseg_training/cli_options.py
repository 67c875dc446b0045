"""The options of fastseg-train, with the help that teaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseg import VARIANTS
from fastseg.data import describe_kinds
from fastseg.outputs import Reading
from fastseg_training.config import TrainConfig
from fastseg_training.losses import LOSSES

Check = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Look at a data set and stop."),
]
Evaluate = Annotated[
    str | None,
    typer.Option(metavar="CHECKPOINT", help="Score a network on --data."),
]
Tta = Annotated[bool, typer.Option(help="--evaluate on mirror images and three scales.")]
ConfusionPicture = Annotated[
    Path | None,
    typer.Option(metavar="PNG", help="--evaluate: draw the confusion matrix."),
]
Data = Annotated[
    str | None,
    typer.Option(metavar="KIND:PATH", help=describe_kinds()),
]
Split = Annotated[
    str | None,
    typer.Option(help="train or trainval; --evaluate: val or test [test]."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(VARIANTS)} or package.module:factory. [{TrainConfig.model}]",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Start from these weights; imagenet or noise. [lite: imagenet if installed]",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="NETWORK",
        help="Imitate this network: a checkpoint, package.module:factory or an ONNX file. What it "
        "thinks of each picture is kept in $FASTSEG_CACHE/soft-labels.",
    ),
]
TeacherWeights = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="State dict of its factory."),
]
TeacherMap = Annotated[
    str | None,
    typer.Option(
        metavar="TOML",
        help="Which of its classes make up those of the data, e.g. cityscapes-to-camvid.",
    ),
]
TeacherSize = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="What pictures are enlarged to for it. [its own size, else theirs]"
    ),
]
TeacherNormalization = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|TOML",
        help="What it was trained with: imagenet, unit, centred or a file. [centred]",
    ),
]
TeacherLicence = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="On what terms it stands, e.g. 'trained on Cityscapes (non-commercial)'; the "
        "student's header says so.",
    ),
]
TeacherUsage = Annotated[
    str | None,
    typer.Option(metavar="WHAT", help="commercial or research: what it allows. [research]"),
]
Unlabelled = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|VIDEO", help="More pictures, which it alone labels."),
]
Prune = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Save this share of the MACs of --init by removing channels."
    ),
]
Usage = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="commercial or research: what your own data allow. Known data, --init and --teacher "
        "may say less, and then do.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Other names and colours of the classes."),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Resize pictures. [their own size]"),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="--evaluate: its weights."),
]
Normalization = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|TOML",
        help="What it takes: imagenet, unit (0 to 1), centred, or a file with mean, std and scale. "
        "[centred: (x - 128) / 64]",
    ),
]
Color = Annotated[str | None, typer.Option(help="rgb or bgr: the order of its channels.")]
OutputName = Annotated[
    str | None,
    typer.Option(help="Which output are its logits: out, 1, aux.0."),
]
Threshold = Annotated[
    float | None,
    typer.Option(help=f"With one logit: the second class above it. [{Reading.threshold}]"),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="TOML",
        help="A file of all options; those given go first. In it [loss] formula is a sum of "
        f"{', '.join(LOSSES)}, such as ce+0.5*dice.",
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        "--epochs", "--finetune-epochs", help=f"Passes over the data. [{TrainConfig.epochs}]"
    ),
]
Minutes = Annotated[float | None, typer.Option(help="Stop by the clock instead.")]
BatchSize = Annotated[int | None, typer.Option(help=f"Crops per step. [{TrainConfig.batch}]")]
Crop = Annotated[
    str | None,
    typer.Option(metavar="WxH", help=f"Of training crops. [{TrainConfig.crop}]"),
]
LearningRate = Annotated[float | None, typer.Option(help=f"Peak learning rate. [{TrainConfig.lr}]")]
Seed = Annotated[
    int | None, typer.Option(help=f"Of weights, order, variation. [{TrainConfig.seed}]")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads. [all]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1. [auto]")]
Name = Annotated[
    str | None,
    typer.Option(help="Folder runs/NAME. [the --config's, else DATA-MODEL]"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Version = Annotated[bool, typer.Option("--version", help="Print the version.")]
