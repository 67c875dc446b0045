"""Train nano with one choice changed at a time, all by one recipe, and time each network.

    python tools/ablations/run_ablations.py --data camvid:PATH --epochs 30 --out ablations
    python tools/ablations/run_ablations.py --out ablations --docs    # table into docs/training.md

Started again it goes on where it was stopped. OUT/ablations.json and OUT/ablations.md are written
after every training; rows that are not trained yet are left out.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ablated_networks
import numpy as np
import torch
from compare_models.candidate import export
from compare_models.timing import time_graphs
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_training.config import TrainConfig, dump_config
from fastseg_training.evaluate import score_network
from fastseg_training.losses import LossOptions
from fastseg_training.optimisation import Recipe
from torch import nn

from fastseg import CheckpointInfo, DeployGraph, FastSegNet, Network, profile
from fastseg.checkpoint import read_state_dict
from fastseg.data import open_dataset
from fastseg.fastsegnet import STRIDE

HERE, DOCS = Path(__file__).parent, Path(__file__).parents[2] / "docs" / "training.md"
SIZE = (480, 384)  # multiples of 32: a head at 1/4 has no deploy graph for others
ROUNDS = 40
ALIKE = ("data", "epochs", "seed", "init", "batch", "crop")  # of all rows of a table
BEGIN, END = "<!-- ablations: written by run_ablations.py -->", "<!-- end of ablations -->"
HEAD = """\
| nano with | mIoU | to nano | near borders | parameters | GMACs | ms, ONNX Runtime | to nano |
|---|--:|--:|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Ablation:
    """One changed choice: a network, or an option of its training."""

    name: str
    changed: str  # in words, for the table
    factory: str = "reference"  # in ablated_networks
    scale: float = 1.0  # of the input, in pictures
    loss: LossOptions = field(default_factory=LossOptions)
    recipe: Recipe = field(default_factory=Recipe)


ABLATIONS = (
    Ablation("reference", "nothing changed"),
    Ablation("fused-at-8", "fused blocks at 1/8", "fused_at_8"),
    Ablation("concat-fusion", "FFM: concatenation and 1x1, as in BiSeNet", "concat_fusion"),
    Ablation("no-weights", "no class weights", loss=LossOptions(class_weights="none")),
    Ablation("ohem", "OHEM, no class weights", loss=LossOptions("ohem", "none")),
    Ablation("pyramid-pooling", "pyramid pooling for the ARM at 1/32", "pyramid_pooling"),
    Ablation("no-ema", "no averaging of weights", recipe=Recipe(ema_decay=0.0)),
    Ablation("dilated", "dilation instead of a stage at 1/32", "dilated"),
    Ablation("quarter-skip", "a skip from 1/4, head at 1/4", "quarter_skip"),
    Ablation("dupsample", "learnt upsampling of logits to 1/4 (DUpsampling)", "dupsample"),
    Ablation("enlarged", "pictures enlarged 1.5 times", scale=1.5),
    Ablation("border-loss", "a loss of the pixels near borders too", loss=LossOptions("ce+border")),
)
NAMES = tuple(ablation.name for ablation in ABLATIONS)


def configure(ablation: Ablation, data: str, options: argparse.Namespace) -> TrainConfig:
    """Return the recipe that all share, with the one change."""
    size = scaled(picture_size(data), ablation.scale)
    crop = scaled(parse_size(options.crop), ablation.scale)
    return TrainConfig(
        data=data,
        model=f"ablated_networks:{ablation.factory}",
        epochs=options.epochs,
        size=f"{size[0]}x{size[1]}",
        crop="x".join(str(-(-side // STRIDE) * STRIDE) for side in crop),
        batch=options.batch,
        init=options.init,
        threads=options.threads,
        seed=options.seed,
        loss=ablation.loss,
        recipe=dataclasses.replace(ablation.recipe, evaluations=1),
    )


def train(ablation: Ablation, config: TrainConfig, out: Path) -> Path:
    """Train by fastseg-train, or go on with it, and return the weights' file."""
    run = out / "runs" / ablation.name
    file = out / f"{ablation.name}.toml"
    file.write_text(dump_config(config), "utf-8")
    words = ["--resume"] if (run / "resume.pt").exists() else ["--config", file.name, "--force"]
    command = [sys.executable, "-m", "fastseg_training", "--threads", str(config.threads)]
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *words, "--name", ablation.name],
        cwd=out,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=sys.stderr,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return run / "model.safetensors"


def score(ablation: Ablation, weights: Path, data: str) -> dict[str, Any]:
    """Return the scores on the test split."""
    dataset = open_dataset(data, "test")
    model = build(ablation.factory, len(dataset.classes), weights)
    width, height = scaled(picture_size(data), ablation.scale)
    info = CheckpointInfo(ablation.factory, dataset.classes, width, height)
    network = Network(model, info, ablation.name, "")
    return score_network(network, data, "test").scores(dataset.classes)


def picture_size(data: str) -> tuple[int, int]:
    """Return (width, height) of the pictures."""
    height, width = open_dataset(data, "train")[0].label_HW.shape
    return width, height


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (width, height) times a factor, in whole pixels."""
    return round(size[0] * scale), round(size[1] * scale)


def build(factory: str, num_classes: int, weights: Path) -> FastSegNet:
    """Return a trained network without auxiliary heads."""
    model: FastSegNet = getattr(ablated_networks, factory)(num_classes)
    model.auxiliary_heads = nn.ModuleList()
    model.load_state_dict(read_state_dict(weights))
    return model.eval()


def train_all(options: argparse.Namespace) -> None:
    """Train and score what OUT/results lacks; the table is written after each."""
    results = options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    data = options.data = absolute(options.data)
    refuse_mixture(options.out, {key: getattr(options, key) for key in ALIKE})
    for ablation in ABLATIONS:
        file = results / f"{ablation.name}.json"
        if file.exists() or ablation.name not in (options.only or NAMES):
            continue
        config = configure(ablation, data, options)
        scores = score(ablation, train(ablation, config, options.out), data)
        told = ("epochs", "seed", "init")
        scores |= {key: getattr(config, key) for key in told} | {"data": data.partition(":")[0]}
        write_file(file, json.dumps(scores).encode())
        report(options)


def refuse_mixture(out: Path, wanted: Mapping[str, Any]) -> None:
    """Exit where a folder was begun otherwise: a table compares what is trained alike."""
    file = out / "options.json"
    if not file.exists():
        write_file(file, json.dumps(wanted, indent=1).encode())
    for key, known in json.loads(file.read_text("utf-8")).items():
        if known != wanted[key]:
            sys.exit(f"{out} was begun with {key} {known!r}, not {wanted[key]!r}: another --out")


def absolute(data: str) -> str:
    """Return a data set's name with an absolute path, if it has one."""
    kind, colon, location = data.partition(":")
    is_path = bool(colon) and Path(location).exists()
    return f"{kind}:{Path(location).resolve()}" if is_path else data


def report(options: argparse.Namespace) -> str:
    """Write OUT/ablations.json and OUT/ablations.md from the trained rows; return the latter."""
    rows = []
    for ablation in ABLATIONS:
        file = options.out / "results" / f"{ablation.name}.json"
        if file.exists():
            made = {key: getattr(ablation, key) for key in ("name", "changed", "factory", "scale")}
            rows.append(made | json.loads(file.read_text("utf-8")))
    measure(rows, options.out / "runs")
    text = render(rows)
    (options.out / "ablations.json").write_text(json.dumps(rows, indent=1), "utf-8")
    (options.out / "ablations.md").write_text(text, "utf-8")
    return text


def measure(rows: Sequence[dict[str, Any]], runs: Path) -> None:
    """Add parameters, multiply-adds and times; the times of one run, taken turn by turn.

    On a street, by trained networks: the class map's time is that of the borders in it.
    """
    graphs = {}
    for row in rows:
        weights = runs / row["name"] / "model.safetensors"
        model, size = build(row["factory"], len(row["iou"]), weights), scaled(SIZE, row["scale"])
        cost = profile(model, size)
        row |= {"parameters": cost.parameters, "macs": cost.macs}
        street_HW3 = open_dataset(f"synthetic:size={size[0]}x{size[1]}", "test")[0].image_HW3
        feed = {"image": street_HW3[None]}
        graphs[row["name"]] = (export(DeployGraph(model, *size).eval()), feed)
    times_ms = time_graphs(graphs, threads=1, rounds=ROUNDS)
    for row in rows:
        row["latency_ms"] = float(np.median(times_ms[row["name"]]))


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown; differences are to the first row."""
    if not rows:
        return "No ablation is trained yet.\n"
    first = rows[0]
    lines = [
        f"| {row['changed']} | {row['miou']:.3f} | {100 * (row['miou'] - first['miou']):+.1f} "
        f"| {row['boundary_miou']:.3f} "
        f"| {row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e9:.2f} | {row['latency_ms']:.1f} "
        f"| {row['latency_ms'] / first['latency_ms'] - 1:+.0%} |\n"
        for row in rows
    ]
    epochs, images = f"{first['epochs']:g} epochs", first["images"]
    if first["init"]:
        epochs += f" from {first['init']}"
    width, height = SIZE
    note = (
        f"\nOne run each, seed {first['seed']}, {epochs}, {first['data']} test split "
        f"({images} images): differences below a point are noise, and so short a schedule says "
        f"less than a long one. Times at {width}x{height}, one thread, all networks turn by turn "
        f"in one run on a generated street, of enlarged pictures at that many more; the changes of "
        f"training alone leave the network's time as it is but for the borders in its maps. "
        f"Near borders: within {first['boundary_pixels']} px.\n"
    )
    return HEAD + "".join(lines) + note


def write_docs(text: str) -> None:
    """Replace what stands between the two marks of docs/training.md."""
    page = DOCS.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{text}{END}{after}", "utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="what to train on, e.g. camvid:PATH; none: only the table")
    parser.add_argument("--out", type=Path, default=Path("ablations"))
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--crop", default="288x288")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init", default="", help="what all start from, e.g. nano-camvid")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="train these alone")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/training.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out = options.out.resolve()
    if options.data:
        train_all(options)
    text = report(options)
    if options.docs:
        write_docs(text)
    print(text)


if __name__ == "__main__":
    main()
