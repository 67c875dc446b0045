import dataclasses
import itertools

import numpy as np
import pytest
import torch
from fastseg_runtime.bundle.manifest import numbered_classes
from fastseg_training.batches.augment import Augmentation
from fastseg_training.batches.loader import BatchLoader, BatchPlan
from fastseg_training.config import TrainConfig
from fastseg_training.lessons import Lessons
from fastseg_training.training_data import open_loader

from fastseg import CheckpointInfo
from fastseg.data import Array, DataError, Sample

PLAIN = Augmentation(1, 1, flip=0, brightness=0, contrast=0, saturation=0, tint=0, blur=0)


def make_loader(samples: list[Sample], batch_size: int = 4, workers: int = 1) -> BatchLoader:
    plan = BatchPlan(samples, batch_size, (64, 32), Augmentation(), seed=3)
    return BatchLoader(plan, workers=workers)


def test_batches_are_normalised_floats_and_integer_labels(samples: list[Sample]) -> None:
    plan = BatchPlan(samples, 1, (96, 64), PLAIN, seed=0)
    batch = BatchLoader(plan).make(0)
    source = next(s for s in samples if batch.files == s.files)
    image_HW3 = torch.from_numpy(source.image_HW3).float()
    torch.testing.assert_close(batch.image_N3HW[0], (image_HW3.permute(2, 0, 1) - 128) / 64)
    assert torch.equal(batch.label_NHW[0], torch.from_numpy(source.label_HW).long())
    assert batch.image_N3HW.is_contiguous(memory_format=torch.channels_last)


def test_every_epoch_shows_each_sample_once_in_another_order(samples: list[Sample]) -> None:
    loader = make_loader(samples, batch_size=3)
    epochs = [
        [file for step in range(first, first + 4) for file in loader.make(step).files]
        for first in (0, 4)
    ]
    names = sorted(file for sample in samples for file in sample.files)
    assert [sorted(epoch) for epoch in epochs] == [names, names]
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_set_goes_round(samples: list[Sample]) -> None:
    loader = make_loader(samples[:3], batch_size=8)
    assert len(loader.make(0).files) == 8
    assert len(loader) == 1


def noisy(image_hw3: Array, label_hw: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    return image_hw3 ^ rng.integers(0, 16, image_hw3.shape, dtype=np.uint8), label_hw


ALL = Augmentation(
    flip_vertical=0.5, rotation=20, exposure=0.5, haze=0.3, cutmix=0.5, copy_paste=0.5
)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", [Augmentation(), ALL], ids=["the defaults", "everything"])
def test_batches_from_a_step_are_those_of_a_run_from_the_start(
    samples: list[Sample], workers: int, options: Augmentation
) -> None:
    plan = BatchPlan(
        samples, 4, (64, 32), options, 3, rare=(2,), with_rare=(1, 4),
        function=noisy if options is ALL else None,
    )  # fmt: skip
    whole = list(itertools.islice(BatchLoader(plan, workers=workers).batches_from(0), 9))
    resumed = list(itertools.islice(BatchLoader(plan).batches_from(5), 4))
    for batch, again in zip(whole[5:], resumed, strict=True):
        assert torch.equal(batch.image_N3HW, again.image_N3HW)
        assert torch.equal(batch.label_NHW, again.label_NHW)
        assert batch.files == again.files


def flat(index: int, label: int) -> Sample:
    """A picture of one class and colour."""
    image_HW3 = np.full((64, 64, 3), 20 * index, np.uint8)
    return Sample(image_HW3, np.full((64, 64), label, np.uint8), f"{index}", (f"{index}.png",))


def test_a_rectangle_of_another_picture_brings_its_labels() -> None:
    pictures = [flat(index, index) for index in range(4)]
    options = dataclasses.replace(PLAIN, cutmix=1)
    batches = [BatchLoader(BatchPlan(pictures, 4, (64, 64), options, 0)).make(s) for s in range(4)]
    mixed = 0
    for batch in batches:
        for image_3HW, label_HW in zip(batch.image_N3HW, batch.label_NHW, strict=True):
            assert torch.equal(image_3HW[0] * 64 + 128, label_HW * 20.0)
            mixed += len(label_HW.unique()) == 2
    assert mixed > 8
    assert any(len(files.split()) == 2 for files in batches[0].files)


def test_rare_things_are_pasted_alone_with_their_labels() -> None:
    pictures = [flat(0, 0), flat(1, 1)]
    pictures[1].label_HW[20:24, 30:40] = 2
    pictures[1].image_HW3[20:24, 30:40] = 200
    options = dataclasses.replace(PLAIN, copy_paste=1)
    plan = BatchPlan(pictures, 2, (64, 64), options, 0, rare=(2,), with_rare=(1,))
    batch = BatchLoader(plan).make(0)
    for image_3HW, label_HW in zip(batch.image_N3HW, batch.label_NHW, strict=True):
        assert (label_HW == 2).sum() == 40
        assert (image_3HW[0][label_HW == 2] * 64 + 128 == 200).all()
        assert len(label_HW.unique()) == 2  # nothing else of the other picture


def test_pasting_changes_no_other_number_that_is_drawn(samples: list[Sample]) -> None:
    plain, mixed = (
        BatchPlan(samples, 4, (64, 32), options, 3).draw(5)
        for options in (Augmentation(), Augmentation(cutmix=1))
    )
    for one, other in zip(plain, mixed, strict=True):
        assert one.index == other.index and other.pasted is not None
        assert np.array_equal(one.variation.image_from_crop_23, other.variation.image_from_crop_23)


def test_processes_share_the_batch_of_one(samples: list[Sample]) -> None:
    def files(rank: int, world_size: int) -> tuple[str, ...]:
        plan = BatchPlan(samples, 4, (64, 32), Augmentation(), 3, rank=rank, world_size=world_size)
        return BatchLoader(plan).make(5).files

    whole, first, second = files(0, 1), files(0, 2), files(1, 2)
    assert (whole[::2], whole[1::2]) == (first, second)


def test_a_broken_file_is_reported_by_the_batch_that_needs_it(samples: list[Sample]) -> None:
    class Broken(list[Sample]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
            raise DataError("street.png: truncated")

    with pytest.raises(DataError, match=r"street\.png: truncated"):
        next(make_loader(Broken(samples)).batches_from(0))


class Untouched:
    """Samples that lie on a disk: a look at one costs its decoding."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("a sample was decoded")


def test_no_sample_is_looked_at_before_training_where_nothing_is_pasted() -> None:
    info = CheckpointInfo("nano", numbered_classes(2), 64, 64)
    config = TrainConfig(data="synthetic", device="cpu")
    assert len(open_loader(config, Untouched(), info, Lessons(), (), None)) == 1
    with pytest.raises(AssertionError, match="was decoded"):
        open_loader(config, Untouched(), info, Lessons(), (1,), None)
