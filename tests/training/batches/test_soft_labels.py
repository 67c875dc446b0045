"""Soft labels: on disk and back, kept, resumed, and cut together with their pictures."""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_training import SegmentationTrainer, trainer
from fastseg_training.batches import soft_labels
from fastseg_training.batches.augment import Augmentation, apply_variation, draw_variation
from fastseg_training.batches.device_loader import DeviceBatchLoader, vary_soft_batch
from fastseg_training.batches.loader import Batch, BatchLoader, BatchPlan
from fastseg_training.batches.soft_labels import (
    CROP_STRIDE,
    LEVELS,
    P_OF_CODE_256,
    Picture,
    encode,
    label_softly,
    read_label,
    vary_label,
    write_label,
)
from fastseg_training.run_folder import RunFolder, TrainingStoppedError
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data import Array, DataError, Sample

SIZE, CROP = (96, 64), (64, 32)


class Counting:
    """Says of each picture that its class is its colour, and counts how often it is asked."""

    def __init__(self, fails_at: int = -1, name: str = "counting") -> None:
        self.asked, self.fails_at = 0, fails_at
        self.identity = {"teacher": name}

    def probabilities(self, image_HW3: Array, grid: tuple[int, int]) -> Array:
        if self.asked == self.fails_at:
            raise KeyboardInterrupt
        self.asked += 1
        p_hwK = np.zeros((grid[1], grid[0], 3), np.float32)
        p_hwK[..., int(image_HW3[0, 0, 0]) % 3] = 1
        return p_hwK


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    return tmp_path


def pictures(count: int = 5) -> Iterator[Picture]:
    for index in range(count):
        yield Picture(np.full((12, 16, 3), index, np.uint8), (16, 12))


def label(count: int, teacher: Any) -> soft_labels.SoftLabels:
    return label_softly(pictures(count), count, teacher, "a test")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_probability_comes_back_within_half_a_step(values: list[float]) -> None:
    p_hwK = np.array(values, np.float32)[None, None]
    step_of_root = np.abs(np.sqrt(P_OF_CODE_256[encode(p_hwK)]) - np.sqrt(p_hwK))
    assert step_of_root.max() <= 0.5 / LEVELS + 1e-6
    assert np.array_equal(P_OF_CODE_256[encode(np.round(p_hwK))], np.round(p_hwK))


def test_a_label_is_made_once_and_read_afterwards() -> None:
    first, second = Counting(), Counting()
    made, kept = label(5, first), label(5, second)
    assert (first.asked, second.asked) == (5, 0)
    assert len(kept) == 5 and all(np.array_equal(made[i], kept[i]) for i in range(5))
    assert [int(kept[i][0, 0].argmax()) for i in range(5)] == [0, 1, 2, 0, 1]
    assert kept[0].shape == (6, 8, 3)  # half of the picture


def test_an_interruption_loses_only_the_label_that_was_being_made(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(5, Counting(fails_at=3))
    assert not list(cache.rglob("*.part"))
    rest = Counting()
    assert len(label(5, rest)) == 5
    assert rest.asked == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not all of it", None])
def test_a_damaged_label_is_made_anew(damage: bytes | None) -> None:
    file = label(1, Counting()).files[0]
    file.write_bytes(file.read_bytes()[:-30] if damage is None else damage)
    assert read_label(file) is None
    teacher = Counting()
    assert label(1, teacher)[0].any() and teacher.asked == 1


def test_a_label_that_vanishes_while_training_is_named() -> None:
    labels = label(1, Counting())
    labels.files[0].unlink()
    with pytest.raises(
        DataError, match=r"\.npz: this soft label is gone or damaged; start the command again"
    ):
        labels[0]


def test_another_picture_size_or_teacher_is_another_label() -> None:
    image = np.zeros((12, 16, 3), np.uint8)
    other = image.copy()
    other[5, 5, 1] = 1
    keys = {Picture(image, (16, 12)).key, Picture(other, (16, 12)).key, Picture(image, (8, 6)).key}
    assert len(keys) == 3
    first = label(1, Counting()).files[0].parent
    assert label(1, Counting(name="another")).files[0].parent != first


def test_the_disk_that_labels_may_take_is_said_and_refused_where_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    label(5, Counting())
    assert "computing soft labels, at most 0 MB, into" in capsys.readouterr().err

    class Free:
        free = 143  # a label of the next three has 144 bytes

    monkeypatch.setattr(soft_labels.shutil, "disk_usage", lambda folder: Free)
    with pytest.raises(OSError, match="set FASTSEG_CACHE to another folder"):
        label_softly((Picture(np.full((12, 16, 3), 9, np.uint8), (16, 12)),), 1, Counting(), "it")


def colored(index: int) -> tuple[Sample, Array]:
    """A picture whose class is its colour, and the soft label that says so."""
    rng = np.random.default_rng(index)
    coarse_hw = rng.integers(0, 3, (4, 6)).astype(np.uint8)
    label_HW = np.kron(coarse_hw, np.ones((16, 16), np.uint8))
    image_HW3 = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)[label_HW]
    p_hwK = np.eye(3, dtype=np.float32)[label_HW[::2, ::2]]
    return Sample(image_HW3, label_HW, f"{index}"), encode(p_hwK)


@pytest.mark.parametrize("index", range(20))
def test_a_crop_and_its_soft_label_show_the_same_place(index: int) -> None:
    sample, code_hwK = colored(index)
    still = Augmentation(brightness=0, contrast=0, saturation=0, tint=0, blur=0)
    variation = draw_variation(np.random.default_rng(index), still, sample.label_HW, CROP)
    image_hw3, _ = apply_variation(variation, sample.image_HW3, sample.label_HW, CROP)
    p_Khw = vary_label(variation, code_hwK, SIZE, CROP)
    blocks = image_hw3.reshape(CROP[1] // CROP_STRIDE, CROP_STRIDE, -1, CROP_STRIDE, 3)
    color_3hw = blocks.mean((1, 3)).transpose(2, 0, 1) / 250
    # Away from borders between classes colours and probabilities agree; a shift of one position
    # of the label would not pass.
    pure_hw = (color_3hw.max(0) > 0.99) & (color_3hw.min(0) < 0.01)
    assert pure_hw.mean() > 0.3
    assert np.abs(p_Khw - color_3hw)[:, pure_hw].max() < 0.05


def test_outside_of_the_picture_nothing_is_taught() -> None:
    sample, code_hwK = colored(0)
    small = Augmentation(0.25, 0.25)
    variation = draw_variation(np.random.default_rng(0), small, sample.label_HW, CROP)
    _, label_hw = apply_variation(variation, sample.image_HW3, sample.label_HW, CROP)
    mass_hw = vary_label(variation, code_hwK, SIZE, CROP).sum(0)
    outside_hw = (label_hw == 255).reshape(8, 4, 16, 4).all((1, 3))
    assert outside_hw.mean() > 0.3
    assert mass_hw[outside_hw].max() < 0.1
    assert mass_hw.max() > 0.99


def plan(**options: Any) -> BatchPlan:
    pairs = [colored(index) for index in range(5)]
    samples, soft = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    unlabelled = samples[3:] if options else []
    labelled = samples[:3] if options else samples
    pictures = {"soft": soft, "unlabelled": unlabelled}
    return BatchPlan(labelled, 4, CROP, Augmentation(), 0, **pictures, **options)


def test_a_batch_on_the_device_equals_opencv_picture_by_picture() -> None:
    drawn = plan().draw(3)
    expected_NKhw = plan().vary_soft(drawn)
    assert expected_NKhw is not None
    codes = torch.from_numpy(np.stack([plan().soft[place.index] for place in drawn]))
    got_NKhw = vary_soft_batch(codes, [place.variation for place in drawn], SIZE, CROP)
    # OpenCV rounds positions to 1/32 of a pixel.
    assert (got_NKhw - expected_NKhw).abs().max() < 0.08
    assert (got_NKhw - expected_NKhw).abs().mean() < 0.01


def unsoft() -> BatchPlan:
    """The same pictures without a teacher."""
    return dataclasses.replace(plan(unlabelled_places=1), soft=())


@pytest.mark.parametrize("cutmix", [0, 1])
def test_both_loaders_show_the_same_soft_labels(cutmix: float) -> None:
    wanted = dataclasses.replace(
        plan(unlabelled_places=1), augmentation=Augmentation(cutmix=cutmix)
    )
    first = next(DeviceBatchLoader(wanted, torch.device("cpu")).batches_from(7))
    second = next(BatchLoader(wanted).batches_from(7))
    assert first.soft_NKhw is not None and second.soft_NKhw is not None
    assert (first.soft_NKhw - second.soft_NKhw).abs().mean() < 0.01
    plain = next(BatchLoader(plan(unlabelled_places=1)).batches_from(7))
    assert plain.soft_NKhw is not None
    assert torch.equal(plain.soft_NKhw, second.soft_NKhw) == (not cutmix)
    assert (first.image_N3HW - second.image_N3HW).abs().median() <= 1 / 64


def test_unlabelled_pictures_have_their_places_and_the_others_keep_their_pace() -> None:
    with_frames = plan(unlabelled_places=1)
    assert len(with_frames) == 1  # three labelled places a batch, three labelled samples
    drawn = [[place.index for place in with_frames.draw(step)] for step in range(4)]
    assert all(sorted(indices[:3]) == [0, 1, 2] for indices in drawn)
    assert {indices[3] for indices in drawn} == {3, 4}
    halves = [BatchPlan(**{**vars(with_frames), "rank": r, "world_size": 2}) for r in (0, 1)]
    parts = [[place.index for place in half.draw(2)] for half in halves]
    assert parts[0] == drawn[2][::2] and parts[1] == drawn[2][1::2]


def test_a_written_label_is_read_as_it_was(tmp_path: Path) -> None:
    code_hwK = np.random.default_rng(0).integers(0, LEVELS + 1, (5, 7, 11)).astype(np.uint8)
    write_label(tmp_path / "a.npz", code_hwK)
    read = read_label(tmp_path / "a.npz")
    assert read is not None and np.array_equal(read, code_hwK)


def cut_short(loader: BatchLoader, step: int) -> Iterator[Batch]:
    """Batches until a step, at which somebody presses Ctrl-C."""
    for number, batch in enumerate(loader.batches_from(0)):
        if number == step:
            signal.raise_signal(signal.SIGINT)
        yield batch


@pytest.mark.slow
def test_a_resumed_run_with_soft_labels_ends_bit_for_bit_like_an_uninterrupted_one(
    make_trainer: Callable[..., SegmentationTrainer],
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = BatchLoader(plan(unlabelled_places=1))
    # An epoch is one batch here, of three labelled samples: six steps.
    options = {"steps": 18, "train_loader": loader, "taught": (0, 1), "val_loader": None}
    whole = make_trainer(**options)
    whole.train()
    without = make_trainer(**{**options, "train_loader": BatchLoader(unsoft())})
    without.train()
    assert whole.loss != without.loss  # the labels were heard
    stopped = make_trainer(run, **options)
    monkeypatch.setattr(trainer, "batches_from", lambda loader, step: cut_short(loader, 3))
    with pytest.raises(TrainingStoppedError):
        stopped.train()
    monkeypatch.undo()
    resumed = make_trainer(run, **options)
    resumed.resume()
    assert resumed.step == 3
    resumed.train()
    assert resumed.loss == whole.loss
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
