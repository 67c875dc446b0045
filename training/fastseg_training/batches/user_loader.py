"""Loaders of a user's own: what can be gone through again and again, and what a batch has to be.

Whatever is wrong is one line that says what came, what was expected and what to do.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor

from fastseg_training.batches.loader import Batch, StepLoader

SHOWN_KEYS = 6  # of a batch that is a dictionary
Loader = Iterable[Any] | StepLoader


class LoaderError(ValueError):
    """A loader or one of its batches cannot be used; the message says what to do."""


def check_loader(loader: Loader, name: str) -> None:
    """Refuse what cannot be gone through again and again.

    Raises:
        LoaderError: it has no batches, or is a generator.
    """
    if isinstance(loader, Iterator):
        raise LoaderError(
            f"{name} is a {type(loader).__name__}, which can be gone through once only; pass a "
            "DataLoader, a list, or an object whose __iter__ starts anew"
        )
    if not isinstance(loader, (Iterable, StepLoader)) and not hasattr(loader, "__getitem__"):
        raise LoaderError(f"{name} is a {type(loader).__name__}; expected a DataLoader or a list")
    if _length(loader) == 0:
        raise LoaderError(_no_batches(name))


def count_batches(loader: Loader, name: str) -> int:
    """Return the number of batches of one pass; a loader without a length is gone through once.

    Raises:
        LoaderError: there are none, or it can be gone through only once.
    """
    check_loader(loader, name)
    count = _length(loader)
    if count is None:
        assert not isinstance(loader, StepLoader)
        count = sum(1 for _ in loader)
    if not count:
        raise LoaderError(_no_batches(name))
    return count


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # that of a DataLoader of a data set without a length raises too
        return None


def _no_batches(name: str) -> str:
    return (
        f"{name} has no batches; with drop_last=True a DataLoader gives none where there are fewer "
        "pictures than batch_size"
    )


def batches_from(loader: Loader, step: int) -> Iterator[Any]:
    """Yield batches without end from that of a step on, going through the loader repeatedly.

    Raises:
        LoaderError: a pass through it gave no batch.
    """
    if isinstance(loader, StepLoader):
        return loader.batches_from(step)
    return itertools.islice(_passes(loader), step, None)


def _passes(loader: Iterable[Any]) -> Iterator[Any]:
    for number in itertools.count(1):
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise LoaderError(
                f"pass {number} through train_loader gave no batch; its __iter__ has to start anew "
                "each time"
            )


@dataclass(frozen=True)
class BatchCheck:
    """What the batches of a loader have to be.

    Attributes:
        name: of the loader, for messages.
        classes: K.
        channels: of the pictures, None where the network alone knows.
        same_size: labels have the pictures' size; else predictions are resized to them.
    """

    name: str
    classes: int
    channels: int | None
    same_size: bool

    def __call__(self, batch: Any, number: int) -> Batch:
        """Return a batch as float32 pictures and integer labels.

        Raises:
            LoaderError: it is none; `number` is named.
        """
        problem = self._problem_of_pair(batch) or self._problem_of_images(batch[0])
        problem = problem or self._problem_of_labels(batch[0], batch[1])
        if problem:
            raise LoaderError(f"batch {number} of {self.name}: {problem}")
        rest = batch[2:4] if isinstance(batch, Batch) else ()
        return Batch(batch[0].float(), batch[1].long(), *rest)

    def _problem_of_pair(self, batch: Any) -> str:
        pair = "expected a pair (images, labels); let the data set or collate_fn give that"
        if isinstance(batch, dict):
            keys = ", ".join(repr(key) for key in list(batch)[:SHOWN_KEYS])
            return f"it is a dictionary of {keys}; {pair}"
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            count = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            return f"it is a {type(batch).__name__}{count}; {pair}"
        kinds = [type(part).__name__ for part in batch[:2] if not isinstance(part, Tensor)]
        return (
            f"it holds a {kinds[0]}; expected tensors; torch.as_tensor makes one" if kinds else ""
        )

    def _problem_of_images(self, image: Tensor) -> str:
        shape = tuple(image.shape)
        if image.ndim != 4 or not image.numel():
            how = "; a DataLoader(data, batch_size=8) adds N" if image.ndim == 3 else ""
            return f"images are {shape}; expected (N, 3, H, W){how}"
        if self.channels not in (None, shape[1]) or (shape[3] == 3 != shape[1]):
            how = "; images.permute(0, 3, 1, 2) makes that" if shape[3] == 3 else ""
            return f"images are {shape}; expected (N, 3, H, W){how}"
        if not image.is_floating_point():
            return (
                f"images are {image.dtype}; expected floats, normalised such as "
                "(images.float() - 128) / 64"
            )
        return ""

    def _problem_of_labels(self, image: Tensor, label: Tensor) -> str:
        shape, pictures = tuple(label.shape), len(image)
        expected = (
            f"expected class ids (N, H, W) = ({pictures}, {image.shape[2]}, {image.shape[3]})"
        )
        if label.ndim == 4:
            return f"labels are {shape}; {expected}; {self._how_to_flatten(shape)}"
        if (
            label.ndim != 3
            or len(label) != pictures
            or (self.same_size and label.shape[1:] != image.shape[2:])
        ):
            return f"labels are {shape}; {expected}"
        if label.is_floating_point() or label.is_complex():
            return (
                f"labels are {label.dtype}; expected integers, class ids from 0 to "
                f"{self.classes - 1} and {IGNORE_INDEX}; what scales pictures, such as ToTensor, "
                "must leave labels alone"
            )
        return self._problem_of_ids(label.long())

    def _how_to_flatten(self, shape: tuple[int, ...]) -> str:
        if shape[1] == 1:
            return "labels.squeeze(1) makes that"
        axis = -1 if shape[3] == self.classes != shape[1] else 1
        return f"if they are one-hot, labels.argmax({axis}) makes that"

    def _problem_of_ids(self, label_NHW: Tensor) -> str:
        judged = label_NHW[label_NHW != IGNORE_INDEX]
        low, high = (int(x) for x in torch.aminmax(judged)) if judged.numel() else (0, 0)
        if low >= 0 and high < self.classes:
            return ""
        return (
            f"labels hold {low if low < 0 else high}; expected class ids from 0 to "
            f"{self.classes - 1}, and {IGNORE_INDEX} for pixels that do not count"
        )
