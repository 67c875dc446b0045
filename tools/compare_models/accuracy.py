"""Accuracy on equal work: every network trained by the same recipe for the same time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fastseg_training.build_network import NOISE
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import TrainConfig
from fastseg_training.evaluate import EvaluationBatches, evaluate
from fastseg_training.resident import ResizedDataset

from compare_models.candidate import Candidate, OwnNetworks, is_factory
from fastseg import VARIANTS
from fastseg.data import Dataset, MissingSplitError, open_dataset
from fastseg.progress import show_progress


@dataclass(frozen=True)
class Accuracy:
    """The scores of one network."""

    name: str
    miou: float
    split: str
    images: int
    steps: int


def trainable(candidate: Candidate) -> bool:
    """Return whether a candidate can be trained anew: a variant, or a factory."""
    path = Path(candidate.spec)
    return candidate.spec in VARIANTS or (candidate.graph is not None and not path.exists())


def train_and_score(
    candidate: Candidate, data: str, minutes: float, folder: Path, own: OwnNetworks | None = None
) -> Accuracy:
    """Train a candidate from scratch and score it on the test split, else on val.

    Args:
        candidate: one that is trainable().
        data: a data set.
        minutes: of training; with the recipe's defaults otherwise.
        folder: for what the trainer would keep.
        own: what a factory's network takes and gives.
    """
    given = dataclasses.asdict(own) if own is not None and is_factory(candidate.spec) else {}
    said = {name: value for name, value in given.items() if value is not None}
    config = TrainConfig(data=data, model=candidate.spec, minutes=minutes, init=NOISE, **said)
    folder.mkdir(parents=True)
    trainer = build_trainer(config, folder)
    assert trainer.run is not None
    info = trainer.run.info
    trainer.run = None  # nothing is kept: all of the time is for training
    trainer.train()
    split, dataset = _scored_split(data)
    samples = ResizedDataset(dataset, None)
    size = (info.width, info.height)
    batches = EvaluationBatches(samples, size, info.input_normalization())
    shown = show_progress(batches, f"scoring {candidate.name}", len(batches))
    miou = evaluate(trainer.model, shown, len(info.classes), reading=trainer.reading).miou
    return Accuracy(candidate.name, miou, split, len(dataset), trainer.step)


def _scored_split(data: str) -> tuple[str, Dataset]:
    try:
        return "test", open_dataset(data, "test")
    except MissingSplitError:
        return "val", open_dataset(data, "val")
