"""Ship a trained network: weights in half precision, scored on the whole test split, with a card.

    python tools/ship_weights/ship_weights.py runs/camvid-base --name base-camvid --data camvid:PATH
    python tools/ship_weights/ship_weights.py          # only write docs/models.md again

Refused: a run that is not finished, one that no configuration that ships reproduces, and weights
that score otherwise once they are rounded. Prints the table of all shipped networks.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_training.config import SHIPPED, TrainConfig, load_config
from fastseg_training.evaluate import score_network

from fastseg import CheckpointInfo, Network, open_network, pretrained, profile, save_checkpoint
from fastseg.network import name_of

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "docs" / "models.md"
MAX_DROP = 0.0005  # of the mIoU by half precision: a twentieth of a point


class NotShippedError(ValueError):
    """The run cannot ship; the message says why."""


def ship(run: Path, name: str, data: str) -> None:
    """Write fastseg/weights/NAME.safetensors.

    Args:
        run: the folder of a finished run.
        name: of the shipped network, e.g. "base-camvid".
        data: the data set whose test split gives the scores.

    Raises:
        NotShippedError: see the module.
    """
    kind = data.partition(":")[0]
    if kind not in LIMITS or (name.endswith("-cs") and name not in TERMS):
        raise NotShippedError(f"write into TERMS and LIMITS what {name} of {kind} is good for")
    trained = open_network(run / "model.safetensors")
    if not trained.info.training.get("finished"):
        raise NotShippedError(f"{run} is not finished; go on with fastseg-train --resume")
    config = reproducing_config(run)
    pretrained.FOLDER.mkdir(exist_ok=True)
    path = pretrained.FOLDER / f"{name}.safetensors"
    trial = path.with_suffix(".trial.safetensors")
    try:
        save_checkpoint(trial, trained.model, trained.info, torch.float16)
        scores = compare(trained, open_network(trial), data)
        account = account_for(trained, config)
        info = dataclasses.replace(trained.info, training=account, evaluation=scores)
        save_checkpoint(trial, trained.model, info, torch.float16)
        os.replace(trial, path)
    finally:
        trial.unlink(missing_ok=True)


def compare(trained: Network, rounded: Network, data: str) -> dict[str, Any]:
    """Return the rounded network's scores, and refuse them if rounding has changed them."""
    whole, half = (score_network(network, data, "test") for network in (trained, rounded))
    if abs(whole.miou - half.miou) > MAX_DROP:
        raise NotShippedError(
            f"mIoU is {whole.miou:.4f} in float32 and {half.miou:.4f} in float16, more than "
            f"{MAX_DROP} apart; ship float32 or look at the weights' range"
        )
    scores = half.scores(rounded.info.classes)
    return {"data": f"{data.partition(':')[0]} test", **scores, "float32_miou": whole.miou}


def account_for(trained: Network, config: Path) -> dict[str, Any]:
    """Return how the weights came about, without where files lay on this machine."""
    training = {key: value for key, value in trained.info.training.items() if key != "data"}
    kind = load_config(config, {}).data.partition(":")[0]
    data = kind if kind.startswith("synthetic") else f"{kind}:PATH"
    command = f"fastseg-train --config {config.stem} --data {data} --seed {training['seed']}"
    return training | {"command": command, "float32_sha256": trained.sha256}


def reproducing_config(run: Path) -> Path:
    """Return the configuration that ships and says what a run's config.toml says.

    Raises:
        NotShippedError: there is none.
    """
    wanted = comparable(load_config(run / "config.toml", {}))
    for path in sorted(SHIPPED.glob("*.toml")):
        if comparable(load_config(path, {})) == wanted:
            return path
    raise NotShippedError(
        f"no file of {SHIPPED} says what {run / 'config.toml'} says; add it, so that others can "
        "train the same"
    )


def comparable(config: TrainConfig) -> TrainConfig:
    """Return a configuration without what differs between machines and seeds."""
    kind, _, location = config.data.partition(":")
    return dataclasses.replace(
        config,
        data=f"{kind}:{location}" if kind.startswith("synthetic") else kind,
        init=name_of(config.init),
        teacher=name_of(config.teacher),
        teacher_weights=Path(config.teacher_weights).name,
        teacher_map=Path(config.teacher_map).stem,
        unlabelled=Path(config.unlabelled).name,
        recipe=dataclasses.replace(
            config.recipe, mean_with=[name_of(path) for path in config.recipe.mean_with]
        ),
        threads=0,
        device="auto",
        seed=0,
    )


# docs/models.md: a table of the shipped networks and a card of each, from their own headers.
HEAD = """\
# The networks that ship

Written by `tools/ship_weights/ship_weights.py` from the headers of `fastseg/weights/*.safetensors`;
change the networks, not this page.

A name works wherever a command takes a checkpoint:

    fastseg-run {name} photo.jpg
    fastseg-export {name} --target cpu-fp32
    fastseg-train --evaluate {name} --data camvid:PATH
    fastseg-train --init {name} --data folder:PATH
    python -c "from fastseg import open_network; network = open_network('{name}').model"

Weights are stored in half precision and computed with in float32 or what a target asks for. Scores
are of the rounded weights, single scale, over the whole test split. Each is the end of a fixed
schedule, not its best moment; which schedules ship was decided knowing their scores.

The code's MIT licence does not cover the weights: `fastseg/weights/LICENSE-WEIGHTS` does. What they
may be used for is `usage` in each header, "research" or "commercial" ("" where nobody said). A
bundle has it too, and so has what is trained from them, taught by them or pruned from them: the
strictest of data, start and teacher wins. Of data of your own, say it: `fastseg-train --usage
commercial`. With `--require-usage commercial`, `fastseg-export`, `fastseg-run` and `remote_bench`
refuse all else, exit code 1, before any work. No street network that ships here is
known to be cleared for commercial use; train one on data that is.
"""
NONE = "\nNo network ships yet.\n"
TABLE = """\
| name | parameters | GMACs | input | file | mIoU | mIoU near borders | trained on | weights |
|---|--:|--:|--:|--:|--:|--:|---|---|
"""
# Network, else its data set -> why its weights may be used so.
TERMS = {
    "lite-camvid-cs": "Taught by FDDWNet and MiniNetv2, trained on Cityscapes (non-commercial), on "
    "CamVid pictures (no licence named): non-commercial research only; descendants inherit this.",
    "camvid": "CamVid's authors name no licence; we treat these weights as research-only.",
    "synthetic": "No data of others went into them; the MIT licence of the code is theirs too.",
}
# Data set -> what a network of it is not good for.
LIMITS = {
    "camvid": "Other cities, cameras, weathers or seasons: its labelled pictures come from a few "
    "drives of one car through one English town, and 267 that networks labelled from Californian "
    "dashcams. Classes with a low IoU below are not to be relied "
    "on, nor is any of it where safety depends on the answer.",
    "synthetic": "Real pictures: it has seen generated scenes alone. It is for trying the tools, "
    "and a start for training on pictures of your own that owes nothing to anybody's data.",
}


def render_page(networks: Sequence[Network], folder: Path) -> str:
    """Return docs/models.md.

    Args:
        networks: the shipped ones.
        folder: of their files.
    """
    name = pretrained.default()
    head = HEAD.format(name=name or "NAME")
    if name is None:
        return head + NONE
    cards = [render_card(network) for network in networks]
    return "\n".join([head, render_table(networks, folder), *cards])


def render_table(networks: Sequence[Network], folder: Path) -> str:
    """Return one row a network, as README shows them too."""
    return TABLE + "".join(_row(network, folder) for network in networks)


def _row(network: Network, folder: Path) -> str:
    info = network.info
    cost = profile(network.model, (info.width, info.height))
    megabytes = (folder / f"{network.name}.safetensors").stat().st_size / 1e6
    scores = info.evaluation
    name = f"`{network.name}`" + (", the default" * (network.name == pretrained.default()))
    return (
        f"| {name} | {cost.parameters / 1e6:.2f} M | {cost.macs / 1e9:.2f} "
        f"| {info.width}x{info.height} | {megabytes:.1f} MB | {scores['miou']:.3f} "
        f"| {scores['boundary_miou']:.3f} | {info.trained_on} | {describe_usage(info.usage)} |\n"
    )


def _beside(config: TrainConfig) -> str:
    """Return the options that a command wants beside its configuration."""
    frames = " --unlabelled FRAMES" if config.unlabelled else ""
    return frames + (f" --teacher {config.teacher}" if config.teacher.endswith(".onnx") else "")


def trained_before(config: TrainConfig) -> dict[str, TrainConfig]:
    """Return the configurations whose trainings one starts from, learns from or is mixed with.

    Returns:
        stem -> configuration, each after those that it wants itself.
    """
    chain: dict[str, TrainConfig] = {}
    for path in (config.init, config.teacher, *config.recipe.mean_with):
        if path.startswith("runs/"):
            first = load_config(SHIPPED / f"{name_of(path)}.toml", {})
            chain |= trained_before(first) | {name_of(path): first}
    return chain


def _recipe(command: str) -> str:
    """Return a command with what it wants beside its configuration, and what comes before it."""
    named = re.search(r"--config ([\w.-]+)", command)
    if named is None:
        return f"`{command}`"
    config = load_config(SHIPPED / f"{named[1]}.toml", {})
    chain = trained_before(config).items()
    first = ", ".join(f"`--config {stem}{_beside(before)}`" for stem, before in chain)
    return f"`{command}{_beside(config)}`" + (f" after, in this order, {first}" if first else "")


def render_card(network: Network) -> str:
    """Return the card of one network."""
    info, training, scores = network.info, network.info.training, network.info.evaluation
    data = info.trained_on.split()[0]
    start = f"started from {training['init']}" if training.get("init") else "from scratch"
    teacher = f", taught by {training['teacher']}" if training.get("teacher") else ""
    mean = f", the mean with {len(others)} more" if (others := training.get("mean_with")) else ""
    made = f"{training['epochs']:g} epochs, seed {training['seed']}, {start}{teacher}{mean}"
    # Headers of before the configurations shipped name a path where these go by their names now.
    command = re.sub(r"training/configs/([\w.-]+)\.toml", r"\1", training["command"])
    # Headers of before say "its teacher" of one that may have taught what the network started from.
    terms = training.get("init_licence", "").replace(
        "its teacher,", "among its teachers and theirs,"
    )
    imagenet = f"- ImageNet: {terms}.\n" if terms else ""
    return f"""\
## {network.name}

- Weights: {describe_usage(info.usage)}. {TERMS.get(network.name) or TERMS[data]}
- Data: {info.trained_on}. Licence of the data: {info.data_licence}.
{imagenet}- Made by {_recipe(command)}: {made}, PyTorch {training["torch"]}.
  One run. Two seeds of nano differ by 0.02 points, of lite by 0.25 (docs/training.md).
- Not good for: {LIMITS[data]}
- Half precision: mIoU {scores["miou"]:.4f}, {scores["float32_miou"]:.4f} before rounding.

{_class_table(info)}"""


def _class_table(info: CheckpointInfo) -> str:
    scores = info.evaluation
    rows = "".join(
        f"| {name} | {'-' if iou is None else format(iou, '.3f')} |\n"
        for name, iou in scores["iou"].items()
    )
    title = f"IoU, {scores['data']}, {scores['images']} images"
    return (
        f"| class | {title} |\n|---|--:|\n{rows}| mean | {scores['miou']:.3f} |\n"
        f"| mean, {scores['boundary_pixels']} px around borders | {scores['boundary_miou']:.3f} |\n"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--name", help="of the shipped network, e.g. base-camvid")
    parser.add_argument("--data", help="whose test split gives the scores, e.g. camvid:PATH")
    options = parser.parse_args()
    if options.run is not None:
        if not (options.name and ":" in (options.data or "")):  # a header names the kind, no path
            parser.error("a run needs --name and --data KIND:PATH, such as camvid:PATH")
        try:
            ship(options.run, options.name, options.data)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
    networks = [open_network(name) for name in pretrained.names()]
    CARDS.write_text(render_page(networks, pretrained.FOLDER), "utf-8")
    print(render_table(networks, pretrained.FOLDER))


if __name__ == "__main__":
    main()
