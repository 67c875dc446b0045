"""Batches for training: each one is a function of the seed and the step, so any can be redone.

Shape letters: N batch, H and W pixels, h and w pixels of a crop.
"""

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor

from fastseg.data import Array, Sample, Samples
from fastseg.normalization import CENTRED, NAMED, Normalization
from fastseg_training.batches.augment import (
    Augmentation,
    Region,
    Variation,
    apply_variation,
    draw_box,
    draw_variation,
)
from fastseg_training.batches.soft_labels import CROP_STRIDE, Labels, vary_label

ENOUGH_PIXELS = 4096  # of a channel: fewer may have few values by chance
MOST_LEVELS = 257  # of a channel made of bytes: 256, and its padding
QUEUE = 3  # batches made ahead by each thread: a slow picture does not stop the training
PATIENCE_S = 0.5  # for a thread to finish its batch when nobody wants more
OF_UNLABELLED, OF_PASTING, OF_FUNCTION = 2, 3, 4  # streams of chance of their own
# Takes a crop, uint8 (h, w, 3) and (h, w), and what to draw from; returns the same two.
CropFunction = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]
T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """One place of a batch: a picture, how it is varied, and what is pasted over it.

    Attributes:
        index: counts on from the samples to the unlabelled ones, as soft labels do.
        sample: the picture.
        variation: of it.
        chance: the seed of what a function of the user's draws.
        pasted: another picture.
        region: what of that is pasted.
    """

    index: int
    sample: Sample
    variation: Variation
    chance: tuple[int, ...] = ()
    pasted: "Drawn | None" = None
    region: Region = field(default_factory=Region)

    @property
    def source(self) -> str:
        """Where it comes from."""
        return source(self.sample) + (f" {self.pasted.source}" if self.pasted else "")


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
        rare: ids of the classes that copy-paste pastes.
        with_rare: indices of the samples that have some.
        function: of the user's, the last to vary a crop.
    """

    samples: Samples
    batch_size: int
    crop: tuple[int, int]
    augmentation: Augmentation
    seed: int
    _: dataclasses.KW_ONLY
    rank: int = 0
    world_size: int = 1
    soft: Labels = ()
    unlabelled: Sequence[Sample] = ()
    unlabelled_places: int = 0
    rare: tuple[int, ...] = ()
    with_rare: Sequence[int] = ()
    function: CropFunction | None = None

    def __len__(self) -> int:
        """Return the number of batches that show every sample once, at the least."""
        return -(-len(self.samples) // self._labelled_places)

    @property
    def _labelled_places(self) -> int:
        return self.batch_size - self.unlabelled_places

    def draw(self, step: int) -> list[Drawn]:
        """Return what is in each place of this process's part of a batch."""
        places = range(self.rank, self.batch_size, self.world_size)
        return [self._draw(step, place) for place in places]

    def _draw(self, step: int, place: int) -> Drawn:
        labelled = self._labelled_places
        if place < labelled:
            position = step * labelled + place
            return self._paste(self._pick(self.samples, 0, position), position)
        position = step * self.unlabelled_places + place - labelled
        return self._pick(self.unlabelled, len(self.samples), position, OF_UNLABELLED)

    def _pick(self, pool: Samples, first: int, position: int, *stream: int) -> Drawn:
        epoch, place = divmod(position, len(pool))
        order = np.random.default_rng((self.seed, epoch, *stream)).permutation(len(pool))
        index = int(order[place])
        sample = pool[index]
        rng = np.random.default_rng((self.seed, position, 1, *stream))
        variation = draw_variation(rng, self.augmentation, sample.label_HW, self.crop)
        return Drawn(first + index, sample, variation, (self.seed, position, OF_FUNCTION, *stream))

    def _paste(self, drawn: Drawn, position: int) -> Drawn:
        """Draw what is pasted, from numbers of its own: without it nothing else changes."""
        options = self.augmentation
        if not (options.cutmix or options.copy_paste):
            return drawn
        rng = np.random.default_rng((self.seed, position, OF_PASTING))
        if self.with_rare and rng.random() < options.copy_paste:
            index = self.with_rare[int(rng.integers(len(self.with_rare)))]
            centred = dataclasses.replace(options, class_centred=1.0)
            return self._with_pasted(drawn, rng, index, centred, Region(classes=self.rare))
        if rng.random() < options.cutmix:
            index = int(rng.integers(len(self.samples)))
            return self._with_pasted(drawn, rng, index, options, Region(draw_box(rng, self.crop)))
        return drawn

    def _with_pasted(
        self,
        drawn: Drawn,
        rng: np.random.Generator,
        index: int,
        options: Augmentation,
        region: Region,
    ) -> Drawn:
        sample = self.samples[index]
        label_HW = sample.label_HW
        if region.classes:  # a crop around one of these
            label_HW = np.where(np.isin(label_HW, region.classes), label_HW, IGNORE_INDEX)
        variation = draw_variation(rng, options, label_HW, self.crop)
        return dataclasses.replace(drawn, pasted=Drawn(index, sample, variation), region=region)

    def vary_soft(self, drawn: list[Drawn], masks: Sequence[Array | None] = ()) -> Tensor | None:
        """Return the soft labels of the crops of a batch, (N, K, h, w); None without a teacher."""
        if not self.soft:
            return None
        labels = [self._vary_soft(place) for place in drawn]
        for place, label_Khw, mask_hw in zip(drawn, labels, masks, strict=False):
            if place.pasted is not None and mask_hw is not None:
                mask_hw = mask_hw[::CROP_STRIDE, ::CROP_STRIDE]
                label_Khw[:, mask_hw] = self._vary_soft(place.pasted)[:, mask_hw]
        return torch.from_numpy(np.stack(labels))

    def _vary_soft(self, drawn: Drawn) -> Array:
        size = drawn.sample.label_HW.shape[::-1]
        return vary_label(drawn.variation, self.soft[drawn.index], size, self.crop)


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
        images, labels, masks = zip(*map(self._cut, drawn), strict=True)
        image_NHW3 = torch.from_numpy(np.stack(images))
        image_N3HW = self.normalization.normalise(image_NHW3)
        label_NHW = torch.from_numpy(np.stack(labels)).long()
        files = tuple(place.source for place in drawn)
        return Batch(image_N3HW, label_NHW, files, self.plan.vary_soft(drawn, masks))

    def _cut(self, drawn: Drawn) -> tuple[Array, Array, Array | None]:
        image_hw3, label_hw = _crop(drawn, self.plan.crop)
        mask_hw = None
        if drawn.pasted is not None:
            other_hw3, other_hw = _crop(drawn.pasted, self.plan.crop)
            mask_hw = drawn.region.mask(other_hw)
            image_hw3[mask_hw], label_hw[mask_hw] = other_hw3[mask_hw], other_hw[mask_hw]
        if self.plan.function is not None:
            rng = np.random.default_rng(drawn.chance)
            image_hw3, label_hw = self.plan.function(image_hw3, label_hw, rng)
        return image_hw3, label_hw, mask_hw


def _crop(drawn: Drawn, crop: tuple[int, int]) -> tuple[Array, Array]:
    sample = drawn.sample
    return apply_variation(drawn.variation, sample.image_HW3, sample.label_HW, crop)


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
            if len(futures) >= workers * QUEUE:
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
