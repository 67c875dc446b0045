from dataclasses import dataclass

import numpy as np
import pytest
from fastseg_training.resident import ResizedDataset, make_resident
from fastseg_training.soft_labels import SoftLabels

from fastseg.data import Sample

PICTURES, PIXELS = 5, 64


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_a_data_set_is_kept_where_it_takes_half_of_the_free_memory_at_most(
    spare: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 2 * PICTURES * PIXELS * 4 + spare
    monkeypatch.setattr("fastseg_training.resident.free_memory_bytes", lambda: free_bytes)
    image_HW3, label_HW = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    samples = ResizedDataset([Sample(image_HW3, label_HW, str(n)) for n in range(PICTURES)], None)
    assert (make_resident(samples, "reading") is not samples) == fits


@dataclass(frozen=True)
class Made(SoftLabels):
    def __getitem__(self, index: int) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_soft_labels_are_kept_by_the_same_measure(
    spare: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = Made(tuple(range(PICTURES)))  # type: ignore[arg-type]  # no file is opened
    free_bytes = 2 * PICTURES * 48 + spare
    monkeypatch.setattr("fastseg_training.soft_labels.free_memory_bytes", lambda: free_bytes)
    assert (labels.resident() is not labels) == fits
