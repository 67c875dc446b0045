"""Score lite against the number of its training pictures, its start and how it is trained.

    python tools/ablations/few_pictures.py --data camvid:PATH --pictures 20 50 --out few

Each of --ways is trained on the same pictures, spread evenly over the training split, for the same
number of steps, and scored on the whole test split. Started again it goes on where it was stopped.
OUT/few_pictures.json and OUT/few_pictures.md are written after every training.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_training.batches.augment import Augmentation
from fastseg_training.config import TrainConfig, dump_config
from fastseg_training.losses import LossOptions
from fastseg_training.optimisation import Recipe
from run_ablations import absolute, refuse_mixture

from fastseg.data import open_dataset
from fastseg.data.file_dataset import FileDataset

ALIKE = ("data", "model", "steps", "crop", "seed")  # of all rows of a table
BATCH = 8  # of camvid-lite, which is lite's recipe, as is what a Way says by default
EVENLY, RARE_MORE_OFTEN = Augmentation(), Augmentation(class_centred=0.5)
CUTMIX = Augmentation(class_centred=0.5, cutmix=0.5)


@dataclass(frozen=True)
class Way:
    """What a training starts from, how its encoder may move, and how pictures are varied."""

    words: str
    init: str = "imagenet"
    lr: float = 2e-3
    backbone_factor: float = 0.25
    freeze: str = ""
    augmentation: Augmentation = RARE_MORE_OFTEN


WAYS = {
    "noise": Way("noise", "noise", backbone_factor=1.0),
    "imagenet": Way("ImageNet, encoder at a quarter of the rate"),
    "frozen": Way("ImageNet, encoder frozen", freeze="backbone"),
    "imagenet-half": Way("ImageNet, all at half of that rate", lr=1e-3),
    "imagenet-x4": Way("ImageNet, all at four times that rate", lr=8e-3),
    "frozen-x2": Way("ImageNet, encoder frozen, twice the rate", lr=4e-3, freeze="backbone"),
    "frozen-x4": Way("ImageNet, encoder frozen, four times the rate", lr=8e-3, freeze="backbone"),
    "frozen-x8": Way("ImageNet, encoder frozen, eight times the rate", lr=16e-3, freeze="backbone"),
    "evenly": Way("encoder frozen, crops laid evenly", freeze="backbone", augmentation=EVENLY),
    "cutmix": Way("encoder frozen, CutMix", freeze="backbone", augmentation=CUTMIX),
    "camvid": Way("`lite-camvid`, which knows these pictures", "lite-camvid"),
}


def link_pictures(data: str, count: int, folder: Path) -> int:
    """Lay links to `count` training pictures and to the whole of val and test; return how many."""
    for split in ("train", "val", "test"):
        dataset = open_dataset(data, split)
        if not isinstance(dataset, FileDataset):
            sys.exit(f"{data} is drawn; expected pictures in files")
        pairs = list(dataset.pairs)
        if split == "train":
            count = min(count, len(pairs))
            pairs = [pairs[round(i * len(pairs) / count)] for i in range(count)]
        for part in ("images", "labels"):
            (folder / split / part).mkdir(parents=True, exist_ok=True)
        for pair in pairs:
            link(pair.image, folder / split / "images")
            link(pair.label, folder / split / "labels")
    return count


def link(file: Path, folder: Path) -> None:
    """Link to `file` in `folder`, unless that is there."""
    if not (folder / file.name).exists():
        (folder / file.name).symlink_to(file.resolve())


def run(out: Path, *words: str) -> str:
    """Run fastseg-train in `out` and return what it printed."""
    command = [sys.executable, "-m", "fastseg_training", *words]
    done = subprocess.run(command, cwd=out, env=os.environ, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def measure(name: str, data: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one row, or go on with it, and return its scores on test."""
    way = WAYS[name]
    run_name = f"{name}-{count}"
    config = TrainConfig(
        data=data,
        model=options.model,
        init=way.init,
        freeze=way.freeze,
        crop=options.crop,
        batch=BATCH,
        lr=way.lr,
        epochs=options.steps / math.ceil(count / BATCH),
        threads=options.threads,
        seed=options.seed,
        loss=LossOptions(class_weights="none"),
        augmentation=way.augmentation,
        recipe=Recipe(backbone_factor=way.backbone_factor, evaluations=1),
    )
    file = options.out / f"{run_name}.toml"
    file.write_text(dump_config(config), "utf-8")
    begun = (options.out / "runs" / run_name / "resume.pt").exists()
    words = ["--resume"] if begun else ["--config", str(file), "--force"]
    run(options.out, *words, "--name", run_name)
    weights = options.out / "runs" / run_name / "model.safetensors"
    text = run(options.out, "--evaluate", str(weights), "--data", data, "--split", "test", "--json")
    scores: dict[str, Any] = json.loads(text)
    return {"way": name, "pictures": count, "steps": options.steps, **scores}


def render(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the table in Markdown: a row per way, a column per number of pictures."""
    counts = sorted({row["pictures"] for row in rows})
    scores = {(row["way"], row["pictures"]): row["miou"] for row in rows}
    lines = [
        f"| {options.model} from | " + " | ".join(f"{count} pictures" for count in counts) + " |",
        "|---|" + "--:|" * len(counts),
    ]
    for name, way in WAYS.items():
        if any((name, count) in scores for count in counts):
            cells = [
                f"{scores[name, count]:.3f}" if (name, count) in scores else "" for count in counts
            ]
            lines.append(f"| {way.words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="what to train on, e.g. camvid:PATH")
    parser.add_argument("--out", type=Path, default=Path("few"))
    parser.add_argument("--pictures", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["noise", "imagenet"])
    parser.add_argument("--model", default="lite")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--crop", default="352x352")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out, options.data = options.out.resolve(), absolute(options.data)
    refuse_mixture(options.out, {key: getattr(options, key) for key in ALIKE})
    results = options.out / "few_pictures.json"
    rows = json.loads(results.read_text("utf-8")) if results.exists() else []
    kind = options.data.partition(":")[0]
    for count in options.pictures:
        folder = options.out / f"pictures-{count}"
        count = link_pictures(options.data, count, folder)
        for name in options.ways:
            if any((row["way"], row["pictures"]) == (name, count) for row in rows):
                continue
            rows.append(measure(name, f"{kind}:{folder}", count, options))
            results.write_text(json.dumps(rows, indent=1), "utf-8")
    text = render(rows, options)
    (options.out / "few_pictures.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
