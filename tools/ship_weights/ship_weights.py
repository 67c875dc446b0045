"""Ship a trained network: weights in half precision, scored on the whole test split, with a card.

    python tools/ship_weights/ship_weights.py runs/camvid-base --name base-camvid --data camvid:PATH
    python tools/ship_weights/ship_weights.py          # only write docs/models.md again

Refused: a run that is not finished, one that no file of training/configs reproduces, and weights
that score otherwise once they are rounded. Prints the table of all shipped networks.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
from fastseg_training.config import TrainConfig, load_config
from fastseg_training.evaluate import score_network
from model_cards import render_page, render_table

from fastseg import Network, open_network, pretrained, save_checkpoint
from fastseg.network import name_of

ROOT = Path(__file__).parents[2]
CONFIGS, CARDS = ROOT / "training" / "configs", ROOT / "docs" / "models.md"
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
    file = config.relative_to(ROOT)
    command = f"fastseg-train --config {file} --data {data} --seed {training['seed']}"
    return training | {"command": command, "float32_sha256": trained.sha256}


def reproducing_config(run: Path) -> Path:
    """Return the file of training/configs that says what a run's config.toml says.

    Raises:
        NotShippedError: there is none.
    """
    wanted = comparable(load_config(run / "config.toml", {}))
    for path in sorted(CONFIGS.glob("*.toml")):
        if comparable(load_config(path, {})) == wanted:
            return path
    raise NotShippedError(
        f"no file of {CONFIGS} says what {run / 'config.toml'} says; add it, so that others can "
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
        threads=0,
        device="auto",
        seed=0,
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
        if not (options.name and options.data):
            parser.error("a run needs --name and --data")
        try:
            ship(options.run, options.name, options.data)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
    networks = [open_network(name) for name in pretrained.names()]
    CARDS.write_text(render_page(networks, pretrained.FOLDER), "utf-8")
    print(render_table(networks, pretrained.FOLDER))


if __name__ == "__main__":
    main()
