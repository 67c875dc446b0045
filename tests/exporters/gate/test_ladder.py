"""The ladder, with a converter and a gate that are plain functions: what is tried, and when."""

import dataclasses
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import ExportedArtifact
from fastseg_exporters.convert.job import Converted, Job
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate.ladder import GateError, Tools, climb_down, rank_layers
from fastseg_exporters.gate.verify import Verification
from fastseg_targets.target import parse_target

TARGET = parse_target(
    "t", 'description = "d"\nexporter = "onnx"\nladder = ["int8", "fp16"]\nextra = "onnx"'
)
JOB = Job(NetworkSource("net"), TARGET, "int8", Calibration())
LAYERS = tuple("abcdefgh")


def tools(
    drops: dict[tuple[str, tuple[str, ...]], float],
    default: float = 0.5,
    told: list[str] | None = None,
) -> Tools:
    """Convert nothing; the drop of a precision with its float layers comes from a table."""

    def convert(job: Job) -> Converted:
        layers = LAYERS if job.precision == "int8" else ()
        artifact = ExportedArtifact("onnx", "m.onnx", {}, {}, {}, layers)
        key = f"{job.precision} {','.join(job.keep_float)}"
        return Converted(artifact, Path("/nonexistent") / key, 1.0, 1.0)

    def convert_each(job: Job, layers: tuple[str, ...]) -> list[Converted]:
        assert job.calibration.count <= 8
        return [convert(dataclasses.replace(job, keep_float=(layer,))) for layer in layers]

    def drop_of(converted: Converted) -> float:
        precision, _, kept = converted.folder.name.partition(" ")
        layers = tuple(layer for layer in kept.split(",") if layer)
        return drops.get((precision, layers), default)

    def verify(job: Job, converted: Converted) -> Verification:
        drop = drop_of(converted)
        return Verification("r", "d", 1, 1.0, 1.0, 1 - drop, 1.0, drop, (0, 0), "x", 0.0)

    def likeness(job: Job, converted: Converted) -> float:
        return 1 - drop_of(converted)

    tell = (told if told is not None else []).append
    return Tools(convert, convert_each, verify, likeness, tell)


def test_a_precision_that_passes_is_taken_as_it_is() -> None:
    rung = climb_down(JOB, tools({("int8", ()): 0.001}))
    assert (rung.precision, len(rung.attempts)) == ("int8", 1)


def test_what_no_label_judged_is_said() -> None:
    told: list[str] = []
    found = Verification("r", "generated scenes", 8, 0.975, 1.0)
    without = dataclasses.replace(tools({}, told=told), verify=lambda job, converted: found)
    assert climb_down(JOB, without).precision == "int8"
    assert told == ["t: int8 judged on agreement with PyTorch alone, 97.5% of the pixels"]


def test_the_most_harmful_layers_go_back_to_float_first_and_no_more_than_needed() -> None:
    drops = {("int8", ("c",)): 0.2, ("int8", ("f",)): 0.3, ("int8", ("c", "f")): 0.005}
    rung = climb_down(JOB, tools(drops))
    assert rung.precision == "int8"
    assert rung.attempts[-1]["float_layers"] == ["c", "f"]
    ranking = rung.attempts[0]["layer_ranking"]
    assert [name for name, _ in ranking[:2]] == ["c", "f"]


def test_no_more_layers_than_needed_are_given_back() -> None:
    worst_first = "cfabdegh"
    drops = {("int8", (layer,)): 0.2 + 0.01 * worst_first.index(layer) for layer in LAYERS}
    drops |= {("int8", tuple(worst_first[:count])): 0.005 for count in (3, 4)}
    rung = climb_down(JOB, tools(drops))
    assert rung.float_layers == ("c", "f", "a")
    assert [len(a["float_layers"]) for a in rung.attempts] == [0, 1, 2, 4, 3]
    assert [bool(a["failures"]) for a in rung.attempts] == [True, True, True, False, False]


def test_layers_are_ranked_by_how_much_each_alone_in_float_brings_back() -> None:
    drops = {("int8", (layer,)): place / 10 for place, layer in enumerate("dbcaefhg")}
    ranking = rank_layers(JOB, LAYERS, tools(drops))
    assert "".join(name for name, _ in ranking) == "dbcaefhg"
    assert [round(likeness, 9) for _, likeness in ranking[:3]] == [1.0, 0.9, 0.8]


def test_when_int8_is_beyond_help_the_next_precision_is_taken_and_every_attempt_kept() -> None:
    rung = climb_down(JOB, tools({("fp16", ()): 0.0}))
    assert rung.precision == "fp16"
    assert [len(a["float_layers"]) for a in rung.attempts] == [0, 1, 2, 4, 0]


def test_strict_stops_with_the_numbers() -> None:
    with pytest.raises(GateError, match=r"int8: mIoU drops by 0\.500, limit 0\.010"):
        climb_down(JOB, tools({}), strict=True)


def test_a_ladder_without_a_rung_that_holds_names_all_of_them() -> None:
    with pytest.raises(GateError, match=r"(?s)int8: .*fp16: "):
        climb_down(JOB, tools({}))
