import dataclasses

import numpy as np
import pytest
import torch
from fastseg_training.batches.augment import Augmentation, apply_variation, draw_variation
from fastseg_training.batches.device_loader import DeviceBatchLoader, fits_on_device, vary_batch
from fastseg_training.batches.loader import BatchLoader, BatchPlan

from fastseg.data import Sample

COLOURS = {"brightness": 0.2, "contrast": 0.3, "saturation": 0.3, "tint": 0.1}
STILL = Augmentation(1, 1, flip=0, brightness=0, contrast=0, saturation=0, tint=0, blur=0)
CASES = {
    "zoom and crop": dataclasses.replace(STILL, scale_min=0.5, scale_max=2.0),
    "flip": dataclasses.replace(STILL, flip=1.0),
    "colour": dataclasses.replace(STILL, **COLOURS),
    "blur": dataclasses.replace(STILL, blur=0.7),
    "turned": dataclasses.replace(STILL, flip_vertical=0.5, rotation=40),
    "light": dataclasses.replace(STILL, exposure=1, haze=0.6),
    "everything": Augmentation(),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_a_batch_on_the_device_equals_opencv_picture_by_picture(
    samples: list[Sample], options: Augmentation
) -> None:
    crop = (64, 48)
    rng = np.random.default_rng(0)
    drawn = [draw_variation(rng, options, sample.label_HW, crop) for sample in samples]
    image_NHW3 = torch.from_numpy(np.stack([sample.image_HW3 for sample in samples]))
    label_NHW = torch.from_numpy(np.stack([sample.label_HW for sample in samples]))
    image_N3hw, label_Nhw = vary_batch(image_NHW3, label_NHW, drawn, crop)
    for index, (sample, variation) in enumerate(zip(samples, drawn, strict=True)):
        image_hw3, label_hw = apply_variation(variation, sample.image_HW3, sample.label_HW, crop)
        same_hw = label_Nhw[index].numpy() == label_hw
        assert same_hw.mean() > 0.985  # positions half way between two pixels round either way
        difference = np.abs(image_N3hw[index].permute(1, 2, 0).numpy() - image_hw3)
        assert np.median(difference) <= 1
        assert (difference > 4).mean() < 0.02


@pytest.mark.parametrize(("sides", "fits"), [((8, 8), True), ((8, 4), False)])
def test_soft_labels_of_two_sizes_do_not_go_onto_a_device(
    samples: list[Sample], sides: tuple[int, int], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1 << 30, 1 << 30))
    soft = [np.zeros((sides[n % 2], 8, 3), np.uint8) for n in range(len(samples))]
    plan = BatchPlan(samples, 4, (64, 32), Augmentation(), seed=3, soft=soft)
    assert fits_on_device(plan, torch.device("cuda")) == fits


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_devices_whose_free_memory_is_not_known_hold_no_data_set(
    samples: list[Sample], kind: str
) -> None:
    plan = BatchPlan(samples, 4, (64, 32), Augmentation(), seed=3)
    assert not fits_on_device(plan, torch.device(kind))


PASTED = {
    "nothing pasted": Augmentation(),
    "rectangles": Augmentation(cutmix=1),
    "rare things": Augmentation(copy_paste=1, rotation=20),
}


@pytest.mark.parametrize("options", PASTED.values(), ids=PASTED.keys())
def test_both_loaders_show_the_same_batches(samples: list[Sample], options: Augmentation) -> None:
    plan = BatchPlan(samples, 4, (64, 32), options, seed=3, rare=(2,), with_rare=range(12))
    on_device = next(DeviceBatchLoader(plan, torch.device("cpu")).batches_from(7))
    by_threads = next(BatchLoader(plan).batches_from(7))
    assert on_device.files == by_threads.files
    assert on_device.label_NHW.dtype == by_threads.label_NHW.dtype
    assert (on_device.label_NHW == by_threads.label_NHW).float().mean() > 0.985
    assert (on_device.image_N3HW - by_threads.image_N3HW).abs().median() <= 1 / 64
