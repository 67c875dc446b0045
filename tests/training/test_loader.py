import itertools

import pytest
import torch
from fastseg_training.augment import Augmentation
from fastseg_training.loader import BatchLoader, BatchPlan

from fastseg.data import DataError, Sample

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


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_from_a_step_are_those_of_a_run_from_the_start(
    samples: list[Sample], workers: int
) -> None:
    loader = make_loader(samples, workers=workers)
    whole = list(itertools.islice(loader.batches_from(0), 9))
    resumed = list(itertools.islice(make_loader(samples).batches_from(5), 4))
    for batch, again in zip(whole[5:], resumed, strict=True):
        assert torch.equal(batch.image_N3HW, again.image_N3HW)
        assert torch.equal(batch.label_NHW, again.label_NHW)
        assert batch.files == again.files


def test_processes_share_the_batch_of_one(samples: list[Sample]) -> None:
    def files(rank: int, world_size: int) -> tuple[str, ...]:
        plan = BatchPlan(samples, 4, (64, 32), Augmentation(), 3, rank, world_size)
        return BatchLoader(plan).make(5).files

    whole, first, second = files(0, 1), files(0, 2), files(1, 2)
    assert (whole[::2], whole[1::2]) == (first, second)


def test_a_broken_file_is_reported_by_the_batch_that_needs_it(samples: list[Sample]) -> None:
    class Broken(list[Sample]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
            raise DataError("street.png: truncated")

    with pytest.raises(DataError, match=r"street\.png: truncated"):
        next(make_loader(Broken(samples)).batches_from(0))
