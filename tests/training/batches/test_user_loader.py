"""What SegmentationTrainer says of loaders of a user's own, and how it ends where one hangs."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastseg_training.batches.user_loader import LoaderError
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.run_folder import RunFolder, TrainingStoppedError
from fastseg_training.trainer import SegmentationTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastseg.data import Sample
from tests.doubles.fastseg_run import running

Pair = tuple[Tensor, Tensor]
PRESSED_S = 0.2  # Ctrl-C, after a loader has begun to hang
HEARD_S = 10.0  # a busy machine's "at once": where it is not heard, nothing ends
Train = Callable[..., SegmentationTrainer]


@pytest.fixture
def make_tiny(make_trainer: Train) -> Train:
    """Returns a maker of trainers of a network of one layer."""
    return lambda *run, **options: make_trainer(*run, model=nn.Conv2d(3, 3, 1), **options)


def pair(count: int = 2, **changes: Any) -> Pair:
    """A good batch, or one with another `image` or `label`."""
    image = changes.get("image", torch.zeros(count, 3, 64, 64))
    return image, changes.get("label", torch.zeros(count, 64, 64).long())


class Stream(IterableDataset[Pair]):
    def __iter__(self) -> Iterator[Pair]:
        return iter([(torch.zeros(3, 64, 64), torch.zeros(64, 64).long())] * 4)


class OnceOnly:
    """Iterable again and again, but with nothing in it after the first time."""

    def __init__(self) -> None:
        self.batches = iter([pair()])

    def __iter__(self) -> Iterator[Pair]:
        return self.batches


IMAGES_64 = TensorDataset(torch.zeros(3, 3, 64, 64), torch.zeros(3, 64, 64).long())
ID = torch.zeros(2, 64, 64).long()


@pytest.mark.parametrize("which", ["train_loader", "val_loader"])
@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (DataLoader(IMAGES_64, 4, drop_last=True), "has no batches; with drop_last=True"),
        ([], "has no batches"),
        ((pair() for _ in range(2)), "is a generator, which can be gone through once only"),
        (iter([pair()]), "gone through once only"),
        (3, "is a int; expected a DataLoader or a list"),
    ],
)
def test_a_loader_that_cannot_be_gone_through_is_refused_at_once(
    which: str, loader: Any, says: str, make_tiny: Train
) -> None:
    with pytest.raises(LoaderError, match=f"^{which} .*{says}"):
        make_tiny(**{which: loader})


@pytest.mark.parametrize("which", ["train_loader", "val_loader"])
def test_a_loader_that_gives_nothing_the_second_time_ends_the_training(
    which: str, make_tiny: Train
) -> None:
    class Empty:
        def __iter__(self) -> Iterator[Pair]:
            return iter([])

    loader = OnceOnly() if which == "train_loader" else Empty()
    loaders: dict[str, Any] = {"train_loader": [pair()], "val_loader": None, which: loader}
    with pytest.raises(LoaderError, match="gave no batch; its __iter__ has to start anew"):
        make_tiny(steps=2, **loaders).train()


def test_a_loader_of_a_stream_is_counted_by_going_through_it(make_tiny: Train) -> None:
    trainer = make_tiny(train_loader=DataLoader(Stream(), 2), val_loader=None, steps=1)
    assert trainer.epoch_steps == 2


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (pair(label=ID[:, None]), r"labels are \(2, 1, 64, 64\).* labels.squeeze\(1\)"),
        (pair(label=torch.zeros(2, 3, 64, 64)), r"\(2, 3, 64, 64\).*one-hot, labels.argmax\(1\)"),
        (pair(label=torch.zeros(2, 64, 64, 3)), r"one-hot, labels.argmax\(-1\)"),
        (pair(label=ID - 1), "labels hold -1; expected class ids from 0 to 2, and 255"),
        (pair(label=ID + 3), "labels hold 3; expected class ids from 0 to 2"),
        (pair(label=ID.float()), "labels are torch.float32; expected integers"),
        (pair(label=ID[:, ::2]), r"labels are \(2, 32, 64\); .* = \(2, 64, 64\)"),
        (pair(label=ID[0]), r"labels are \(64, 64\)"),
        (pair(image=torch.zeros(2, 3, 64, 64).byte()), "images are torch.uint8; expected floats"),
        (pair(image=torch.zeros(2, 64, 64, 3)), r"images.permute\(0, 3, 1, 2\) makes that"),
        (pair(image=torch.zeros(3, 64, 64)), r"DataLoader\(data, batch_size=8\) adds N"),
        (pair(count=0), r"images are \(0, 3, 64, 64\)"),
        ({"image": 1, "mask": 2}, "a dictionary of 'image', 'mask'; expected a pair"),
        (torch.zeros(2, 3, 64, 64), "it is a Tensor; expected a pair"),
        ((torch.zeros(2, 3, 64, 64),), "it is a tuple of 1; expected a pair"),
        (
            pair(image=torch.zeros(2, 3, 64, 64).numpy()),
            "it holds a ndarray; expected tensors; torch.as_tensor makes",
        ),
    ],
)
def test_a_batch_that_cannot_be_trained_on_is_one_clear_line(
    batch: Any, says: str, make_tiny: Train
) -> None:
    with pytest.raises(LoaderError, match=f"^batch 1 of train_loader: .*{says}") as refused:
        make_tiny(train_loader=[pair(), batch], val_loader=None, steps=2).train()
    assert "\n" not in str(refused.value)


def test_grey_pictures_are_refused_for_a_network_of_ours(make_trainer: Train) -> None:
    grey = pair(image=torch.zeros(2, 1, 64, 64))
    with pytest.raises(LoaderError, match=r"images are \(2, 1, 64, 64\); expected \(N, 3, H, W\)"):
        make_trainer(train_loader=[grey], val_loader=None, steps=2).train()


def test_batches_to_validate_on_are_looked_at_too(make_tiny: Train) -> None:
    with pytest.raises(LoaderError, match="^batch 0 of val_loader: labels hold -1"):
        make_tiny(train_loader=[pair()], val_loader=[pair(label=ID - 1)], steps=1).train()
    larger = pair(label=torch.zeros(2, 128, 128).long())  # predictions are resized to it
    make_tiny(train_loader=[pair()], val_loader=[larger], steps=1).train()


def test_labels_and_pictures_of_other_types_that_mean_the_same_are_taken(
    make_tiny: Train,
) -> None:
    masks = pair(label=ID.bool()), pair(label=ID.byte()), pair(label=ID.int() + 255)
    images = (
        pair(image=torch.zeros(2, 3, 64, 64).double()),
        pair(image=torch.zeros(2, 3, 64, 64).half()),
    )
    trainer = make_tiny(train_loader=[*masks, *images], val_loader=None, steps=3)  # an epoch
    trainer.train()
    assert trainer.step == 5


class Hangs:
    """A loader that waits for something that never comes after some good ones: Ctrl-C is pressed.

    Attributes:
        pressed: when.
    """

    pressed = math.inf

    def __init__(self, item: Any, good: int) -> None:
        self.item, self.good = item, good

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        yield from [self.item] * self.good
        threading.Timer(PRESSED_S, os.kill, (os.getpid(), signal.SIGINT)).start()
        self.pressed = time.monotonic() + PRESSED_S
        threading.Event().wait(120)


def test_ctrl_c_is_heard_while_a_loader_hangs_and_what_was_learnt_is_saved(
    make_tiny: Train, run: RunFolder
) -> None:
    hanging = Hangs(pair(), 2)
    trainer = make_tiny(run, train_loader=hanging, val_loader=None)
    with pytest.raises(TrainingStoppedError, match="stopped at step 2"):
        trainer.train()
    assert 0 <= time.monotonic() - hanging.pressed < HEARD_S
    state = run.load_state()
    assert state is not None and state["step"] == 2


def test_an_evaluation_that_ctrl_c_cut_short_is_made_up_for(
    make_tiny: Train, run: RunFolder, samples: list[Sample]
) -> None:
    hanging = make_tiny(run, steps=4, val_loader=Hangs(pair(), 1))
    with pytest.raises(TrainingStoppedError, match="stopped at step 2"):
        hanging.train()
    assert not run.metrics()
    resumed = make_tiny(run, steps=4, val_loader=EvaluationBatches(samples[:3], (96, 64)))
    resumed.resume()
    resumed.train()
    assert [entry["step"] for entry in run.metrics() if "miou" in entry] == [2, 4]


SCRIPT = """
import sys, threading, torch
from fastseg_training.batches.augment import Augmentation
from fastseg_training.batches.loader import BatchLoader, BatchPlan
from fastseg_training import SegmentationTrainer
from fastseg_runtime.arrays.command import run_command
from torch.utils.data import DataLoader

class Hangs:
    def __len__(self):
        return 4
    def __getitem__(self, index):
        print("waiting", flush=True)
        threading.Event().wait(120)

loaders = {
    "our threads": lambda: BatchLoader(BatchPlan(Hangs(), 2, (64, 64), Augmentation(), 0)),
    "a worker": lambda: DataLoader(Hangs(), 2, num_workers=1),
}
def carry_out(_):
    model = torch.nn.Conv2d(3, 2, 1)
    SegmentationTrainer(model, loaders[sys.argv[1]](), None, 2, num_epochs=1).train()

run_command("try", list, carry_out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["our threads", "a worker"])
def test_a_thread_or_worker_that_hangs_does_not_keep_the_process_from_ending(
    loader: str, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(SCRIPT)
    command = [sys.executable, "hangs.py", loader]
    pipe = subprocess.PIPE
    with running(command, cwd=tmp_path, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline()
        assert time.monotonic() - pressed < HEARD_S
        assert line == "try: stopped at step 0\n"
        assert process.wait(60) == 130
