from __future__ import annotations

import numpy as np
import pytest

from fastseg.data import DataError, class_frequencies, open_dataset
from fastseg.data.camvid import CLASSES

KINDS = ("synthetic", "synthetic-lanes", "synthetic-organ", "synthetic-crops")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seed_split_and_index_give_equal_pictures(kind: str) -> None:
    first, again = (open_dataset(f"{kind}:96x72", "train") for _ in range(2))
    first[0]  # what was drawn before must not matter
    one, two = first[3], again[3]
    assert (one.image_HW3 == two.image_HW3).all()
    assert (one.label_HW == two.label_HW).all()


@pytest.mark.parametrize("kind", KINDS)
def test_seed_split_and_index_all_change_the_picture(kind: str) -> None:
    specs = ((f"{kind}:96x72", "train", 0), (f"{kind}:96x72", "train", 1))
    specs += ((f"{kind}:96x72", "val", 0), (f"{kind}:size=96x72,seed=1", "train", 0))
    pictures = {open_dataset(spec, split)[i].image_HW3.tobytes() for spec, split, i in specs}
    assert len(pictures) == len(specs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["32x32", "480x360", "333x97", "90x400"])
def test_any_size_can_be_drawn(kind: str, size: str) -> None:
    width, height = map(int, size.split("x"))
    dataset = open_dataset(f"{kind}:{size}", "train")
    for index in range(4):
        sample = dataset[index]
        assert sample.image_HW3.shape == (height, width, 3)
        assert sample.image_HW3.dtype == sample.label_HW.dtype == np.uint8
        assert sample.label_HW.shape == (height, width)
        assert sample.label_HW.max() < len(dataset.classes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_occurs_and_none_is_all(kind: str) -> None:
    dataset = open_dataset(f"{kind}:size=160x120,train=40", "train")
    share = (
        class_frequencies(dataset, len(dataset.classes))
        / class_frequencies(dataset, len(dataset.classes)).sum()
    )
    assert (share > 0.001).all()
    assert (share < 0.995).all()


def test_streets_have_the_classes_of_camvid_and_no_licence() -> None:
    dataset = open_dataset("synthetic", "val")
    assert dataset.classes == CLASSES
    assert dataset.licence == "none (generated)"
    assert dataset[0].files == ()


def test_streets_are_varied() -> None:
    dataset = open_dataset("synthetic:96x72", "train")
    brightness = [dataset[index].image_HW3.mean() for index in range(30)]
    road = [(dataset[index].label_HW == 3).mean() for index in range(30)]
    assert np.std(brightness) > 15
    assert np.std(road) > 0.05


def test_colour_tells_less_than_place_and_shape() -> None:
    """Classes overlap in colour: a look-up by colour alone must not solve the task."""
    dataset = open_dataset("synthetic:size=160x120,train=40", "train")
    means = np.array([_class_means(dataset[index]) for index in range(40)])  # (N, K, 3)
    between = np.nanstd(np.nanmean(means, axis=0), axis=0).mean()
    within = np.nanmean(np.nanstd(means, axis=0))
    assert within > 0.7 * between


def _class_means(sample):  # type: ignore[no-untyped-def]
    missing = np.full(3, np.nan)
    return [
        sample.image_HW3[sample.label_HW == k].mean(axis=0)
        if (sample.label_HW == k).any()
        else missing
        for k in range(len(CLASSES))
    ]


@pytest.mark.parametrize(
    ("options", "length", "shape"),
    [
        ("", 400, (360, 480)),
        (":7", 400, (360, 480)),
        (":64x48", 400, (48, 64)),
        (":train=3,size=64x48", 3, (48, 64)),
    ],
)
def test_options_set_seed_size_and_length(
    options: str, length: int, shape: tuple[int, int]
) -> None:
    dataset = open_dataset(f"synthetic{options}", "train")
    assert len(dataset) == length
    assert dataset[0].label_HW.shape == shape


def test_a_bare_number_is_the_seed() -> None:
    bare, named = (
        open_dataset("synthetic:7,64x48", "train"),
        open_dataset("synthetic:seed=7,size=64x48", "train"),
    )
    assert (bare[0].image_HW3 == named[0].image_HW3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("colour=red", "colour='red'; expected a number"),
        ("trains=3", "no option 'trains'; choose from"),
        ("train=-1", "expected a number of 0 or more"),
        ("size=480", "cannot read the size .*; write WxH"),
        ("32x31", "size=32x31; expected 32 pixels or more"),
        ("axb", "cannot read the size .*; write WxH"),
        ("8x8", "expected 32 pixels or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(f"synthetic:{options}", "train")
