"""Scores against time: networks of ours and of others, each used in its own way."""

from pathlib import Path

import numpy as np
import pytest
from compare_models import front as front_module
from compare_models.front import Entrant, Scored, measure_front, score
from compare_models.report import pictures_of, tables_of
from compare_models.run import Results
from compare_models.timing import Ratio
from fastseg_exporters.export import Outcome, Plan
from fastseg_runtime.arrays.metrics import Array, confusion_matrix, mean_iou
from fastseg_runtime.bundle.manifest import Artifact, ClassInfo, InputSpec

from fastseg.data import Sample, open_dataset
from tests.compare_models.conftest import DATA, save_nano


@pytest.mark.slow
def test_every_network_is_scored_at_its_own_size_with_its_own_classes(rival_file: str) -> None:
    told: list[str] = []
    front = measure_front(["nano-synthetic", rival_file], DATA, 1, 3, False, told.append)
    ours, theirs = front
    assert (ours.name, ours.size, ours.is_ours, ours.images) == (
        "nano-synthetic",
        "480x360",
        True,
        4,
    )
    assert (theirs.name, theirs.size, theirs.is_ours) == ("theirs", "64x32", False)
    assert ours.miou > theirs.miou
    assert ours.miou_ci95[0] <= ours.miou <= ours.miou_ci95[1]
    assert ours.speedup.median == 1.0 and theirs.latency_ms > 0
    assert theirs.iou["Car"] == 0.0  # no class of it: a miss


def test_pixels_of_a_class_that_the_data_do_not_know_are_misses() -> None:
    samples = open_dataset(DATA, "test")
    count = len(samples.classes)

    class Knowing:
        """Gives the labels themselves, but calls every car something of its own."""

        input = type("Input", (), {"width": 96, "height": 64})
        at = iter(range(len(samples)))

        def infer(self, image_HW3: Array) -> Array:
            label_HW = samples[next(self.at)].label_HW.copy()
            label_HW[label_HW == 255] = 0
            return label_HW

    lookup_256 = np.arange(256, dtype=np.uint8)
    car = [c.name for c in samples.classes].index("Car")
    lookup_256[car] = count

    entrant = Entrant("n", "fp32", 0, False, Knowing(), 1, lookup_256)  # type: ignore[arg-type]
    found = score(entrant, samples, Ratio(1, 1, 1, 1), 1.0)
    occurring = [iou for iou in found.iou.values() if iou is not None]
    assert found.iou["Car"] == 0.0
    assert found.iou["Road"] == 1.0
    assert found.miou == pytest.approx(np.mean(occurring))


class Exported:
    """Stands for exports and for what runs them: every network calls all of a picture class 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans: list[Plan] = []
        self.rungs = ("fp32", "int8")  # what each target's ladder ends at
        self.kept: list[str] = []  # layers of int8 that go back to float
        monkeypatch.setattr(front_module, "export_bundle", self.export)
        monkeypatch.setattr(front_module, "RealtimeSegmentation", self.open)

    def export(self, plan: Plan, tell: object) -> Outcome:
        self.plans.append(plan)
        pairs = zip(plan.targets, self.rungs, strict=False)
        made = tuple(
            Artifact(target.name, "onnx", rung, "", (), extra={"float_layers": self.kept})
            for target, rung in pairs
        )
        return Outcome(type("Manifest", (), {"artifacts": made})())

    def open(self, *_: object, **__: object) -> "Exported":
        return self

    input = InputSpec(96, 64)

    def infer(self, image_HW3: Array) -> Array:
        return np.zeros(image_HW3.shape[:2], np.uint8)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    return Exported(monkeypatch)


def test_a_network_that_knows_more_classes_in_another_order_is_scored_by_their_names(
    exported: Exported, tmp_path: Path
) -> None:
    classes = open_dataset(DATA, "test").classes
    more = (*classes[::-1], ClassInfo("Canal", (0, 0, 9)))
    spec = save_nano(tmp_path / "more.safetensors", more)
    (scored,) = measure_front([spec], DATA, 1, 3, False, lambda line: None)
    assert scored.iou[classes[-1].name] and not scored.iou[classes[0].name]
    assert exported.plans[0].verify_data is None  # which has ids of other classes


def test_a_network_of_the_datas_own_classes_is_judged_on_them(
    exported: Exported, tmp_path: Path
) -> None:
    spec = save_nano(tmp_path / "same.safetensors", open_dataset(DATA, "test").classes)
    measure_front([spec], DATA, 1, 3, False, lambda line: None)
    assert exported.plans[0].verify_data == DATA


class Labelled:
    """Pictures of two pixels, 40 of them, and what a network gives for each."""

    classes = (ClassInfo("road", (0, 0, 0)), ClassInfo("tram", (1, 1, 1)))
    input = InputSpec(2, 1)

    def __init__(self, labels_NW: Array, ids_NW: Array) -> None:
        self.labels_NW, self.ids = labels_NW.astype(np.uint8), iter(ids_NW.astype(np.uint8))

    def __len__(self) -> int:
        return len(self.labels_NW)

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((1, 2, 3), np.uint8), self.labels_NW[index][None], str(index))

    def infer(self, image_HW3: Array) -> Array:
        return next(self.ids)[None]

    def score(self) -> Scored:
        lookup_256 = np.arange(256, dtype=np.uint8)
        entrant = Entrant("n", "fp32", 0, False, self, 1, lookup_256)  # type: ignore[arg-type]
        return score(entrant, self, Ratio(1, 1, 1, 1), 1.0)  # type: ignore[arg-type]


def test_a_stray_pixel_weighs_nothing_in_resamples_that_lack_its_class() -> None:
    labels_NW, ids_NW = np.zeros((2, 40, 2))
    labels_NW[0] = ids_NW[0] = 1  # the one tram, found
    ids_NW[1::2, 1] = 1  # strays
    found = Labelled(labels_NW, ids_NW).score()
    road, tram = found.iou.values()
    assert road and tram and found.miou == pytest.approx((road + tram) / 2)
    assert found.miou_ci95 is not None
    assert found.miou_ci95[1] == pytest.approx(road, abs=0.1)  # some resamples have no tram


def test_a_class_that_is_labelled_nowhere_counts_as_in_every_other_miou() -> None:
    labels_NW, ids_NW = np.zeros((2, 40, 2))
    ids_NW[:2, 0] = 1  # trams where there are none
    labels_NW[20:, 1] = 255
    found = Labelled(labels_NW, ids_NW).score()
    judged = labels_NW < 255
    whole_KK = confusion_matrix(ids_NW[judged], labels_NW[judged], 2)
    assert found.miou == pytest.approx(mean_iou(whole_KK)) == pytest.approx(29 / 60)
    assert found.miou_ci95 is not None
    low, high = found.miou_ci95
    assert low < found.miou < high == pytest.approx(0.5)  # also in what lacks those two pictures


def test_pictures_without_a_label_spoil_no_interval() -> None:
    labels_NW, ids_NW = np.zeros((2, 40, 2))
    labels_NW[1:] = 255
    assert Labelled(labels_NW, ids_NW).score().miou_ci95 == (1.0, 1.0)
    labels_NW[:] = 255
    nothing = Labelled(labels_NW, ids_NW).score()
    assert nothing.miou_ci95 is None
    results = Results({}, "", 2, 1, 2, 1, 3, front=[nothing])
    assert [row[2] for table in tables_of(results) for row in table.rows] == ["nan"]
    assert pictures_of(results, set()) == {}


def test_equal_names_are_numbered(exported: Exported, tmp_path: Path) -> None:
    classes = open_dataset(DATA, "test").classes
    specs = [save_nano(tmp_path / folder / "n.safetensors", classes) for folder in "ab"]
    front = measure_front(specs, DATA, 1, 3, True, lambda line: None)
    assert [row.label for row in front] == ["n", "n int8", "n-2", "n-2 int8"]


def test_a_row_of_int8_tells_how_many_layers_stay_in_float(
    exported: Exported, tmp_path: Path
) -> None:
    exported.kept = ["head"]
    spec = save_nano(tmp_path / "n.safetensors", open_dataset(DATA, "test").classes)
    front = measure_front([spec], DATA, 1, 3, True, lambda line: None)
    assert [row.label for row in front] == ["n", "n int8, 1 in float"]


def test_an_int8_that_its_gate_refuses_has_no_row(exported: Exported, tmp_path: Path) -> None:
    exported.rungs = ("fp32", "fp32")
    spec = save_nano(tmp_path / "n.safetensors", open_dataset(DATA, "test").classes)
    told: list[str] = []
    front = measure_front([spec], DATA, 1, 3, True, told.append)
    assert [row.label for row in front] == ["n"]
    assert told == [f"{spec}: int8 fails its gate; no int8 row"]
