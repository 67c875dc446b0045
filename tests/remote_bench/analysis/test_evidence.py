"""What closes a row of "not run", and what does not."""

import dataclasses

import pytest
from fastseg_runtime.engines.engine import ENGINES
from fastseg_targets.device import device_names
from remote_bench.analysis.evidence import Evidence, Labelled, Place, TargetRun, not_run

ORIN = Place("orin-nano", "Jetson Orin Nano", "aarch64", over_ssh=True)
PI = Place("raspberry-pi-5", "Raspberry Pi 5", "aarch64", over_ssh=True)
PC = Place("generic-x86", "x86 computer", "x86_64", over_ssh=False)
MAC = Place("generic-arm64", "Darwin 15.0", "arm64", over_ssh=False)
GOOD = TargetRun(
    "jetson-fp16",
    "fp16",
    "tensorrt",
    engine="tensorrt",
    agreement=0.99,
    required=0.97,
    labelled=Labelled(20, 0.560, 0.565, most_drop=0.01),
    verdict="valid_with_notes",
)
TENSORRT, PC_GPU, CORE_ML, ARM64, BOARD = (row.title for row in not_run()[:5])


def evidence(place: Place, *runs: TargetRun) -> Evidence:
    return Evidence(1, "", "", place, {}, {}, "", "", runs)


def closed(place: Place, *runs: TargetRun) -> set[str]:
    return {row.title for row in evidence(place, *runs).rows() if row.closed}


def by(engine: str) -> TargetRun:
    return dataclasses.replace(GOOD, made_for=engine, engine=engine)


@pytest.mark.parametrize(
    ("place", "run", "rows"),
    [
        (ORIN, GOOD, {TENSORRT, BOARD}),
        (ORIN, by("onnxruntime"), {ARM64, BOARD}),
        (dataclasses.replace(ORIN, over_ssh=False), GOOD, {TENSORRT}),
        (PC, GOOD, {PC_GPU}),
        (PC, by("onnxruntime"), set()),
        (PI, by("litert"), {ARM64, BOARD}),
        (MAC, by("coreml"), {CORE_ML}),
        (MAC, by("mil"), set()),
        # Another engine than it was made for says nothing of that one.
        (ORIN, dataclasses.replace(GOOD, engine="onnxruntime"), {ARM64, BOARD}),
    ],
)
def test_a_run_closes_the_rows_of_its_engine_and_its_machine(place, run, rows):
    assert closed(place, run) == rows


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"agreement": 0.9699}, "self-test agrees in 97.0%, 97.0% are needed"),
        ({"agreement": None}, "no self-test"),
        ({"verdict": "invalid"}, "invalid"),
        ({"labelled": None}, "no labelled frames; give --frames"),
        ({"labelled": Labelled(20, 0.5, None, 0.01)}, "no engine here gave a reference"),
        ({"labelled": Labelled(20, 0.5549, 0.565, 0.01)}, "loses 1.0 points of mIoU, 1.0 are"),
        ({"problem": "the board rebooted"}, "the board rebooted"),
    ],
)
def test_a_run_that_is_wrong_or_unproven_closes_nothing_and_says_why(changed, why):
    found = evidence(ORIN, dataclasses.replace(GOOD, **changed))
    (row,) = [row for row in found.rows() if row.title == TENSORRT]
    assert not row.closed and row.why.startswith("jetson-fp16: ") and why in row.why


def test_a_wrong_mask_is_a_fault_though_no_labels_were_asked_for():
    unlabelled = dataclasses.replace(GOOD, labelled=None, verdict=None)
    assert not unlabelled.failed
    assert dataclasses.replace(unlabelled, agreement=0.5).failed


def test_just_within_the_limits_it_is_closed():
    labelled = Labelled(20, 0.5551, 0.565, 0.01)
    assert TENSORRT in closed(ORIN, dataclasses.replace(GOOD, agreement=0.97, labelled=labelled))


def test_one_good_artifact_closes_a_row_that_another_does_not():
    bad = dataclasses.replace(GOOD, target="jetson-int8", problem="no memory")
    assert closed(ORIN, bad, GOOD) == {TENSORRT, BOARD}


def test_a_rehearsal_closes_nothing_and_says_so():
    made = dataclasses.replace(ORIN, rehearsal="the board was emulated")
    rows = evidence(made, GOOD).rows()
    assert not any(row.closed for row in rows)
    assert "a rehearsal: the board was emulated" in {row.why for row in rows}


def test_the_rows_name_engines_and_boards_that_exist_and_every_real_board():
    boards = {name for name in device_names() if not name.startswith("generic")}
    for row in not_run():
        assert set(row.engines) <= set(ENGINES) and set(row.devices) <= set(device_names())
        assert row.title != BOARD or set(row.devices) == boards
