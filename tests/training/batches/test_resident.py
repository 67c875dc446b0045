from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fastseg_runtime.arrays.image import encode_class_map, encode_rgb
from fastseg_runtime.bundle.manifest import numbered_classes, palette
from fastseg_training.batches.resident import ResizedDataset, free_memory_bytes, make_resident
from fastseg_training.batches.soft_labels import SoftLabels
from fastseg_training.config import TrainConfig
from fastseg_training.training_data import open_data

from fastseg.data import Sample

PICTURES, PIXELS = 5, 64
PALETTE = palette(numbered_classes(2))


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_a_data_set_is_kept_where_it_takes_half_of_the_free_memory_at_most(
    spare: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 2 * PICTURES * PIXELS * 4 + spare
    monkeypatch.setattr("fastseg_training.batches.resident.free_memory_bytes", lambda: free_bytes)
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
    monkeypatch.setattr("fastseg_training.batches.resident.free_memory_bytes", lambda: free_bytes)
    assert (labels.resident() is not labels) == fits
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert labels.resident() is labels


def test_pictures_larger_than_the_first_are_counted_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "fastseg_training.batches.resident.free_memory_bytes", lambda: 2 * 3 * PIXELS * 4
    )
    small = Sample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), "small")
    large = Sample(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), "large")
    for samples, fits in (([small] * 3, True), ([small, small, large], False)):
        given = ResizedDataset(samples, None)
        assert (make_resident(given, "reading") is not given) == fits
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # processes that share the machine's memory
    given = ResizedDataset([small] * 3, None)
    assert make_resident(given, "reading") is given


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("said", "limited", "names"),
    [
        ("0::/\n", "", V2),
        ("0::/system.slice/slurmd/job_7/step_0\n", "system.slice/slurmd/job_7", V2),
        ("0::/user.slice/train.scope\n", "user.slice/train.scope", V2),
        ("4:memory:/slurm/uid_0/job_7\n1:cpu:/x\n0::/\n", "memory/slurm/uid_0/job_7", V1),
        ("4:memory:/docker/of_the_host\n", "memory", V1),
    ],
)
def test_a_process_has_what_the_limits_of_its_control_groups_leave(
    said: str,
    limited: str,
    names: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastseg_training.batches.resident.CGROUP", tmp_path)
    monkeypatch.setattr("fastseg_training.batches.resident.OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(said)
    whole, group = free_memory_bytes(), tmp_path / limited
    group.mkdir(parents=True, exist_ok=True)
    files = {names[1]: "900\n", "memory.stat": f"anon 1\n{names[2]} 300\n"}
    for name, text in files.items():
        (group / name).write_text(text)
    for limit, free in (("1000\n", 400), ("max\n", whole), (f"{2**63 - 4096}\n", whole)):
        (group / names[0]).write_text(limit)
        assert free_memory_bytes() == pytest.approx(free, rel=0.2)


def test_pictures_of_several_sizes_are_trained_on_at_the_one_that_the_network_sees(
    tmp_path: Path,
) -> None:
    for split, count in (("train", 6), ("val", 1)):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for number in range(count):
            height, width = (48, 64) if number < 4 else (480, 640)
            image_HW3 = np.full((height, width, 3), number, np.uint8)
            label_HW = (np.arange(width) % 2).repeat(height).reshape(width, height).T
            (tmp_path / split / "images" / f"{number}.png").write_bytes(encode_rgb(image_HW3))
            label = encode_class_map(label_HW.astype(np.uint8), PALETTE)
            (tmp_path / split / "labels" / f"{number}.png").write_bytes(label)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    data = open_data(TrainConfig(data=f"folder:{tmp_path}"))
    assert data.size == (64, 48)
    assert {data.train[index].label_HW.shape for index in range(6)} == {(48, 64)}
