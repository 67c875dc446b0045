"""fastseg-train: train, evaluate and check from the command line."""

import dataclasses
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import typer
from fastseg_runtime.arrays.command import (
    DONE,
    FAILED,
    INTERRUPTED,
    UsageError,
    exit_code_help,
    run_command,
)
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.terminal import TextTable, printable
from rich.console import Console

import fastseg
from fastseg import Network, open_network
from fastseg.command_options import (
    ColorOption,
    NormalizationOption,
    OutputNameOption,
    ThresholdOption,
)
from fastseg.data import check_dataset, render_report
from fastseg.data.class_list import read_classes
from fastseg.normalization import parse_normalization
from fastseg.outputs import Reading
from fastseg_training.build_network import choose_start
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import CONFIG, TrainConfig, dump_config, load_config
from fastseg_training.distributed import local_device, process_group, rank
from fastseg_training.evaluate import score_network
from fastseg_training.losses import LOSSES
from fastseg_training.pictures import draw_confusion
from fastseg_training.precision import choose_device
from fastseg_training.run_folder import TrainingStoppedError, held
from fastseg_training.suspects.report import report_suspects
from fastseg_training.which_run import choose_run, name_kind, start_folder

EXIT_CODES = {INTERRUPTED: "stopped by Ctrl-C (go on with --resume)"}


def _options_of(record: type[Any]) -> Any:
    """Return a record of what a user may say of another: its fields with an `Option`, None: unsaid.

    The help ends with the default, unless it says another in brackets.
    """
    options = []
    for name, hint in get_type_hints(record, include_extras=True).items():
        for option in getattr(hint, "__metadata__", ()):
            if (default := getattr(record, name)) and not option.help.endswith("]"):
                option.help += f" [{default}]"
            options.append((name, Annotated[hint.__origin__ | None, option], None))
    return dataclasses.make_dataclass("Said", options, frozen=True)


@dataclass(frozen=True)
class Options(_options_of(TrainConfig)):  # type: ignore[misc]  # a base that is made
    """Train a segmentation network on labelled images, offline, into runs/NAME.

    \b
    fastseg-train --data synthetic --model nano --minutes 2    the shortest way
    fastseg-train --evaluate runs/synthetic-nano/model.safetensors --data synthetic
    """

    check: Annotated[
        str | None, typer.Option(metavar="DATA", help="Look at a data set and stop.")
    ] = None
    evaluate: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Score a network on --data.")
    ] = None
    tta: Annotated[bool, typer.Option(help="--evaluate on mirror images and three scales.")] = False
    confusion: Annotated[
        Path | None, typer.Option(metavar="PNG", help="--evaluate: draw the confusion matrix.")
    ] = None
    suspects: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Rank the labels of --data that this network doubts, and the pictures of "
            "--unlabelled that are worth labelling next.",
        ),
    ] = None
    sheet: Annotated[
        Path,
        typer.Option(metavar="HTML", help="--suspects: the page to write."),
    ] = Path("suspects.html")
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="--evaluate, --suspects: its weights.")
    ] = None
    normalization: NormalizationOption = None
    color: ColorOption = None
    output_name: OutputNameOption = None
    threshold: ThresholdOption = None
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML|NAME",
            help="A file of all options, or one that ships, such as camvid-lite; options given go "
            "first. In it [loss] formula is a sum of "
            f"{', '.join(LOSSES)}, such as ce+0.5*dice.",
        ),
    ] = None
    name: Annotated[
        str | None, typer.Option(help="Folder runs/NAME. [the --config's, else DATA-MODEL]")
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run. [without --name and --data: the newest]"
        ),
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Replace the run.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=exit_code_help(EXIT_CODES))(Options)


def carry_out(options: Options) -> int:
    """Do what was asked and return the exit code."""
    if options.version:
        print(f"fastseg-train {fastseg.__version__}")
        return DONE
    given = {key: value for key, value in vars(options).items() if value is not None}
    if "data" in given:
        given["data"] = name_kind(given["data"])
    if options.check is not None:
        return run_check(options.check, given, options.as_json)
    if options.evaluate is not None:
        _run_evaluation(options.evaluate, given, options.as_json)
    elif options.suspects is not None:
        _run_suspects(options.suspects, given, options.as_json)
    else:
        _run_training(given, options.resume, options.force, options.as_json)
    return DONE


def _data_as_told(given: dict[str, Any]) -> str:
    """Return the string of --data with what other options say of how to read them."""
    names = ("data", "image_range", "split_by", "skip_broken", "most_broken")
    return load_config(None, {name: given[name] for name in names if name in given}).dataset()


def run_check(spec: str, given: dict[str, Any], as_json: bool) -> int:
    """Print what is in a data set and what is wrong with it; return FAILED if anything is."""
    allowed = given.get("allow_missing_classes", False)
    report = check_dataset(_data_as_told(given | {"data": spec}), True, allowed)
    if as_json:
        print(json.dumps(dataclasses.asdict(report) | {"ok": report.ok}))
    else:
        Console().print(render_report(report), soft_wrap=True)
    return DONE if report.ok else FAILED


def _run_evaluation(spec: str, given: dict[str, Any], as_json: bool) -> None:
    """Print the scores of a network on one split."""
    if "data" not in given:
        raise UsageError("--evaluate needs --data, e.g. --data camvid:PATH")
    network = _open_given(spec, given)
    data = _data_as_told(given)
    if "confusion" in given:  # what cannot be made is said before hours of scoring
        given["confusion"].parent.mkdir(parents=True, exist_ok=True)
    evaluation = score_network(network, data, given.get("split", "test"), given["tta"])
    _report_scores(evaluation.scores(network.info.classes), as_json)
    if "confusion" in given:
        draw_confusion(evaluation.confusion_KK, network.info.classes, given["confusion"])


def _run_suspects(spec: str, given: dict[str, Any], as_json: bool) -> None:
    """Print which labels of a split a network doubts, and write the sheet."""
    if not {"data", "unlabelled"} & given.keys():
        raise UsageError("--suspects needs --data, or pictures to label as --unlabelled FOLDER")
    network, sheet = _open_given(spec, given), given["sheet"]
    split = given.get("split", "test")
    data = _data_as_told(given)
    found = report_suspects(network, data, split, given.get("unlabelled", ""), sheet)
    if as_json:
        print(json.dumps(found.as_json() | {"sheet": str(sheet)}))
    else:
        for table in found.tables():
            Console().print(table, soft_wrap=True)
    print(f"wrote {sheet}", file=sys.stderr)


def _open_given(spec: str, given: dict[str, Any]) -> Network:
    """Open a network as the options say; what is to be known of it goes to stderr."""
    names = read_classes(Path(given["classes"]))[0] if "classes" in given else None
    size = parse_size(given["size"]) if "size" in given else None
    if given.get("threads", 0) > 0:
        torch.set_num_threads(given["threads"])
    network = open_network(
        spec,
        names,
        given.get("weights"),
        size,
        parse_normalization(given.get("normalization"), given.get("color")),
        given.get("output_name", ""),
        given.get("threshold", Reading.threshold),
        given.get("fit"),
    )
    for note in network.check(spec):
        print(printable(note), file=sys.stderr)
    if "device" in given:
        network.model.to(choose_device(local_device(given["device"])))
    return network


def _report_scores(scores: dict[str, Any], as_json: bool) -> None:
    """Print scores as JSON or as a table."""
    if as_json:
        print(json.dumps(scores))
        return
    rows = [(name, _shown(iou, 3)) for name, iou in scores["iou"].items()]
    around = f"mean, {scores['boundary_pixels']} px around borders"
    mean = f"mean of {scores['miou_classes']} of {len(scores['iou'])} classes"
    rows += [(mean, _shown(scores["miou"], 4)), (around, _shown(scores["boundary_miou"], 4))]
    title = f"{scores['images']} images"
    Console().print(TextTable(("class", "IoU"), rows, title, right=(1,)), soft_wrap=True)


def _shown(fraction: float | None, digits: int) -> str:
    """Return a score as text, "-" where there was nothing to judge."""
    return "-" if fraction is None else f"{fraction:.{digits}f}"


def _run_training(given: dict[str, Any], resume: bool, force: bool, as_json: bool) -> None:
    """Train, or go on with a training, and print the final scores."""
    if "weights" in given:
        raise UsageError("--weights is for --evaluate; a training starts from --init")
    config, folder = choose_run(given, resume, force)
    if not resume:  # config.toml says what it started from, whatever is installed when it goes on
        config = dataclasses.replace(config, init=choose_start(config))
    if not config.data:
        raise UsageError("--data is missing, e.g. --data camvid:PATH or --data synthetic")
    with process_group(choose_device(local_device(config.device))):
        train(config, folder, resume, force, as_json)


def train(config: TrainConfig, folder: Path, resume: bool, force: bool, as_json: bool) -> None:
    """Train into a folder, in as many processes as torchrun started."""
    trainer = build_trainer(config, folder)
    if rank() == 0 and not resume:
        start_folder(folder, force)
    with held(folder) if rank() == 0 else nullcontext():
        if resume:
            trainer.resume()
        if rank() == 0:
            write_file(folder / CONFIG, dump_config(config).encode())
        try:
            evaluation = trainer.train()
        except TrainingStoppedError as error:
            raise TrainingStoppedError(
                f"{error}; go on with: fastseg-train --resume --name {folder.name}", error.exit_code
            ) from error
    if rank() > 0:
        return
    assert trainer.run is not None
    print(f"trained {trainer.run.model_path}", file=sys.stderr)
    if config.keep_best and not trainer.run.best_path.exists():
        print("no evaluation told two classes apart: none is the best", file=sys.stderr)
    elif config.keep_best:
        print(
            f"best validation mIoU, {trainer.best.miou:.4f} at step {trainer.best.step}: "
            f"{trainer.run.best_path}; chosen on that split, it is no fair score of it",
            file=sys.stderr,
        )
    if evaluation is not None:
        _report_scores(evaluation.scores(trainer.run.info.classes), as_json)
    elif as_json:
        print(json.dumps({"miou": None, "iou": {}, "images": 0}))


def main() -> None:
    """Run the command and exit."""
    run_command(
        "fastseg-train",
        partial(app, prog_name="fastseg-train", standalone_mode=False),
        carry_out,
        mistakes=(torch.OutOfMemoryError,),
    )
