"""A network's scores on one split of a data set: what --evaluate prints."""

from __future__ import annotations

from fastseg import Network
from fastseg.data import open_dataset
from fastseg_training.config import ConfigError
from fastseg_training.evaluate import Evaluation, EvaluationBatches, evaluate
from fastseg_training.progress import show_progress
from fastseg_training.resident import ResizedDataset


def score_network(network: Network, data: str, split: str, tta: bool = False) -> Evaluation:
    """Run a network over a whole split, with a progress bar on stderr.

    Args:
        network: as open_network gives it.
        data: a data set, as for fastseg.data.open_dataset.
        split: "val" or "test".
        tta: average over mirror images and scales.

    Raises:
        ConfigError: the data has another number of classes.
        DataError: the data cannot be opened.
    """
    info, dataset = network.info, open_dataset(data, split)
    if len(dataset.classes) != len(info.classes):
        raise ConfigError(
            f"{network.name} knows {len(info.classes)} classes, {data} has {len(dataset.classes)}"
        )
    samples = ResizedDataset(dataset, None)
    size = (info.width, info.height)
    batches = EvaluationBatches(samples, size, info.mean, info.std, info.normalization)
    shown = show_progress(batches, "evaluating", len(batches))
    return evaluate(network.model, shown, len(info.classes), tta, network.reading)
