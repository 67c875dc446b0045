import numpy as np
import pytest
from compare_models.accuracy import trainable
from compare_models.candidate import OwnNetworks, open_candidates
from compare_models.training_speed import PlainDataset, measure_training, summarise
from fastseg_training.batches.augment import Augmentation

from fastseg.data import open_dataset

MAIN = OwnNetworks(output_name="0")


def test_the_plain_loop_gives_normalised_crops_of_the_asked_size() -> None:
    samples = open_dataset("synthetic:size=96x64,train=3", "train")
    crops = PlainDataset(samples, (128, 96), Augmentation(scale_min=0.5, scale_max=0.6))
    image, label = crops[1]
    assert image.shape == (3, 96, 128) and label.shape == (96, 128)
    assert image.min() >= -2 and image.max() <= 2
    assert label[-1, -1] == 255  # outside of the small picture


def test_ratios_of_training_are_times_of_the_plain_loop_over_ours() -> None:
    speed = summarise(np.array([4.0, 8.0]), np.array([2.0, 4.0]), waiting_s=0.6, images=16)
    assert speed.speedup.median == 2.0
    assert speed.waiting_share == pytest.approx(0.1)


@pytest.mark.slow
def test_both_loops_train_in_turn() -> None:
    data = "synthetic:size=96x64,train=4"
    speed = measure_training(data, "nano", batch=2, crop=(64, 64), rounds=2, steps=1, workers=0)
    assert speed.images_per_s > 0 and speed.plain_images_per_s > 0
    assert 0 <= speed.waiting_share < 1


def test_variants_and_factories_can_be_trained(rival: str) -> None:
    candidates = open_candidates(["nano", rival], (64, 32), classes=3, own=MAIN)
    assert all(trainable(candidate) for candidate in candidates)
