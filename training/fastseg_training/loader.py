"""Batches for training: each one is a function of the seed and the step, so any can be redone.

Shape letters: N batch, H and W pixels, h and w pixels of a crop.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fastseg.data import Sample, Samples
from fastseg.normalization import CENTRED, NAMED, Normalization
from fastseg_training.augment import Augmentation, Variation, apply_variation, draw_variation
from fastseg_training.soft_labels import Labels, vary_label

ENOUGH_PIXELS = 4096  # of a channel: fewer may have few values by chance
MOST_LEVELS = 257  # of a channel made of bytes: 256, and its padding
QUEUE = 3  # batches made ahead by each thread: a slow picture does not stop the training
PATIENCE_S = 0.5  # for a thread to finish its batch when nobody wants more
OF_UNLABELLED = 2  # a stream of chance of their own
T = TypeVar("T")


class Batch(NamedTuple):
    """Normalised images, their class ids and a teacher's probabilities for them at 1/CROP_STRIDE.

    files are for error messages.
    """

    image_N3HW: Tensor
    label_NHW: Tensor
    files: tuple[str, ...] = ()
    soft_NKhw: Tensor | None = None


@runtime_checkable
class StepLoader(Protocol):
    """A loader that can start at any step."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""


@dataclass(frozen=True)
class BatchPlan:
    """Which samples make up the batch of a step, and how each is varied.

    Attributes:
        samples: a data set, best a resident one.
        soft: the teacher's labels of the samples, then of the unlabelled ones; empty without one.
        unlabelled: samples of which nobody judged anything, for the teacher alone.
        unlabelled_places: how many of a batch are for those, its last ones.
        batch_size: samples per step, of all processes together.
        crop: (width, height) of the crops, pixels.
        augmentation: how pictures may vary.
        seed: of order and variation.
        rank: of this process; it makes every world_size-th sample of a batch.
        world_size: number of processes.
    """

    samples: Samples
    batch_size: int
    crop: tuple[int, int]
    augmentation: Augmentation
    seed: int
    rank: int = 0
    world_size: int = 1
    soft: Labels = ()
    unlabelled: Sequence[Sample] = ()
    unlabelled_places: int = 0

    def __len__(self) -> int:
        """Return the number of batches that show every sample once, at the least."""
        return -(-len(self.samples) // self._labelled_places)

    @property
    def _labelled_places(self) -> int:
        return self.batch_size - self.unlabelled_places

    def draw(self, step: int) -> list[tuple[int, Sample, Variation]]:
        """Return (index, sample, variation) for each place in this process's part of a batch.

        The index counts on from the samples to the unlabelled ones, as `soft` does.
        """
        places = range(self.rank, self.batch_size, self.world_size)
        return [self._draw(step, place) for place in places]

    def _draw(self, step: int, place: int) -> tuple[int, Sample, Variation]:
        labelled = self._labelled_places
        if place < labelled:
            return self._pick(self.samples, 0, step * labelled + place)
        position = step * self.unlabelled_places + place - labelled
        return self._pick(self.unlabelled, len(self.samples), position, OF_UNLABELLED)

    def _pick(
        self, pool: Samples, first: int, position: int, *stream: int
    ) -> tuple[int, Sample, Variation]:
        epoch, place = divmod(position, len(pool))
        order = np.random.default_rng((self.seed, epoch, *stream)).permutation(len(pool))
        index = int(order[place])
        sample = pool[index]
        rng = np.random.default_rng((self.seed, position, 1, *stream))
        variation = draw_variation(rng, self.augmentation, sample.label_HW, self.crop)
        return first + index, sample, variation

    def vary_soft(self, drawn: list[tuple[int, Sample, Variation]]) -> Tensor | None:
        """Return the soft labels of the crops of a batch, (N, K, h, w); None without a teacher."""
        if not self.soft:
            return None
        labels = [
            vary_label(variation, self.soft[index], sample.label_HW.shape[::-1], self.crop)
            for index, sample, variation in drawn
        ]
        return torch.from_numpy(np.stack(labels))


@dataclass(frozen=True)
class BatchLoader:
    """Augments in threads of the CPU (OpenCV runs without the GIL).

    Attributes:
        plan: what to load.
        normalization: what the network takes.
        workers: threads.
    """

    plan: BatchPlan
    normalization: Normalization = CENTRED
    workers: int = 1

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.plan)

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""
        return made_ahead(self.make, step, self.workers)

    def make(self, step: int) -> Batch:
        """Make the batch of a step."""
        drawn = self.plan.draw(step)
        crops = (
            apply_variation(variation, sample.image_HW3, sample.label_HW, self.plan.crop)
            for _, sample, variation in drawn
        )
        images, labels = zip(*crops, strict=True)
        image_NHW3 = torch.from_numpy(np.stack(images))
        image_N3HW = self.normalization.normalise(image_NHW3)
        label_NHW = torch.from_numpy(np.stack(labels)).long()
        files = tuple(source(sample) for _, sample, _ in drawn)
        return Batch(image_N3HW, label_NHW, files, self.plan.vary_soft(drawn))


def made_ahead(make: Callable[[int], T], step: int, workers: int) -> Iterator[T]:
    """Yield make(step), make(step + 1), ... without end, in order, each made by a thread.

    A thread that hangs, at a file of a server that is gone, does not keep the process from ending.
    """
    tasks: SimpleQueue[tuple[int, Future[T]] | None] = SimpleQueue()
    threads = [Thread(None, _work, "batches", (make, tasks), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    futures: deque[Future[T]] = deque()
    try:
        for number in itertools.count(step):
            futures.append(Future())
            tasks.put((number, futures[-1]))
            if len(futures) > workers * QUEUE:
                yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        deadline = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _work(make: Callable[[int], T], tasks: "SimpleQueue[tuple[int, Future[T]] | None]") -> None:
    while (task := tasks.get()) is not None:
        number, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(make(number))
            except BaseException as error:  # it is raised where the batch is waited for
                future.set_exception(error)


def check_pictures(image_N3HW: Tensor, said: Normalization) -> None:
    """Refuse pictures that were normalised in another way than a checkpoint would say.

    Pictures of bytes have 256 values a channel at the most, wherever they lie. Of others, such as
    those that were varied after their normalisation, nothing can be said.

    Raises:
        ValueError: they cannot have been made with that normalisation.
    """
    values_3L = image_N3HW.detach().float().movedim(1, 0).flatten(1)
    if values_3L.shape[1] < ENOUGH_PIXELS:
        return
    made_of_bytes = all(len(values_L.unique()) <= MOST_LEVELS for values_L in values_3L)
    if not made_of_bytes or said.explains(image_N3HW):
        return
    fitting = [name for name, known in NAMED.items() if known.explains(image_N3HW)]
    guess = f"they look like {' or '.join(fitting)}; " if fitting else ""
    raise ValueError(
        f"the loader's pictures have values from {values_3L.min():.3g} to {values_3L.max():.3g}, "
        f"which {said} does not give, and that is what the checkpoint would say; {guess}pass "
        "CheckpointInfo(normalization=Normalization(...)) to the run folder"
    )


def source(sample: Sample) -> str:
    """Return where a sample comes from: its files, or its name if it was generated."""
    return " ".join(sample.files) or sample.name
