"""Accuracy on equal work: every network trained by the same recipe for the same time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fastseg_training.build_network import NOISE
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import TrainConfig
from fastseg_training.evaluate import score_network

from compare_models.candidate import Candidate, OwnNetworks
from fastseg import VARIANTS, Network
from fastseg.data import MissingSplitError, open_dataset
from fastseg.network import is_factory


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
    return candidate.spec in VARIANTS or is_factory(candidate.spec)


def scored_split(data: str) -> str:
    """Return "test", or "val" where there is no such split.

    Raises:
        DataError: the data cannot be read, or have neither.
    """
    try:
        return open_dataset(data, "test").split
    except MissingSplitError:
        return open_dataset(data, "val").split


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
    reading = trainer.reading
    network = Network(
        trainer.model, info, candidate.name, "", reading.output_name, reading.threshold
    )
    split = scored_split(data)
    scored = score_network(network, data, split)
    return Accuracy(candidate.name, scored.miou, split, scored.images, trainer.step)
