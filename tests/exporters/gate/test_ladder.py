"""The ladder, in a workshop that converts nothing: what is tried, and when."""

import dataclasses
from pathlib import Path

import pytest
from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import Conversion, ConversionError, ExportedArtifact, Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.gate.ladder import GateError, climb_down, rank_layers
from fastseg_exporters.gate.verify import Verification
from fastseg_targets.target import parse_target

TARGET = parse_target(
    "t", 'description = "d"\nexporter = "onnx"\nladder = ["int8", "fp16"]\nextra = "onnx"'
)
RECIPE = Recipe(NetworkSource("net"))
LAYERS = tuple("abcdefgh")


class Table:
    """Converts nothing; the drop of a precision with its float layers comes from a table."""

    recipe = RECIPE

    def __init__(
        self,
        drops: dict[tuple[str, tuple[str, ...]], float],
        default: float = 0.5,
        layers: tuple[str, ...] = LAYERS,
        found: Verification | None = None,
    ) -> None:
        self.drops, self.default, self.layers, self.found = drops, default, layers, found
        self.told: list[str] = []
        self.tell = self.told.append

    def progress(self, what: str, done: int, total: int) -> None: ...

    def convert(self, conversion: Conversion) -> Converted:
        layers = self.layers if conversion.precision == "int8" else ()
        artifact = ExportedArtifact("onnx", "m.onnx", {}, {}, {}, layers)
        return Converted(artifact, Path("/nonexistent"), 1.0, 1.0)

    def convert_each(self, conversion: Conversion, layers: tuple[str, ...]) -> list[Converted]:
        return [dataclasses.replace(self.convert(conversion), folder=Path(x)) for x in layers]

    def verify(self, conversion: Conversion, converted: Converted) -> Verification:
        drop = self.drops.get((conversion.precision, conversion.keep_float), self.default)
        made = Verification("r", "d", 1, 1.0, 1.0, 1 - drop, 1.0, drop, (0, 0), "x", 0.0)
        return self.found or made

    def likeness(self, conversion: Conversion, converted: Converted) -> float:
        return 1 - self.drops.get(("int8", (converted.folder.name,)), self.default)


def test_a_precision_that_passes_is_taken_as_it_is() -> None:
    passed = climb_down(TARGET, Table({("int8", ()): 0.001}))
    assert (passed.conversion.precision, len(passed.attempts)) == ("int8", 1)


def test_what_no_label_judged_is_said() -> None:
    without = Table({}, found=Verification("r", "generated scenes", 8, 0.975, 1.0))
    assert climb_down(TARGET, without).conversion.precision == "int8"
    assert without.told == [
        "t: int8 judged on agreement with the network alone, 97.5% of the pixels"
    ]


def test_a_float_artifact_that_is_wrong_in_one_scene_of_the_self_test_fails() -> None:
    wrong = Verification("r", "generated scenes", 8, 0.99, 1.0, selftest_agreements=(1.0, 0.2))
    target = dataclasses.replace(TARGET, ladder=("fp16",))
    with pytest.raises(GateError, match=r"fp16: agreement 0\.200 in scene 1 of the self-test"):
        climb_down(target, Table({}, found=wrong))


def test_the_most_harmful_layers_go_back_to_float_first_and_no_more_than_needed() -> None:
    drops = {("int8", ("c",)): 0.2, ("int8", ("f",)): 0.3, ("int8", ("c", "f")): 0.005}
    passed = climb_down(TARGET, Table(drops))
    assert passed.conversion.precision == "int8"
    assert passed.attempts[-1]["float_layers"] == ["c", "f"]
    ranking = passed.attempts[0]["layer_ranking"]
    assert [name for name, _ in ranking[:2]] == ["c", "f"]


def test_no_more_layers_than_needed_are_given_back() -> None:
    worst_first = "cfabdegh"
    drops = {("int8", (layer,)): 0.2 + 0.01 * worst_first.index(layer) for layer in LAYERS}
    drops |= {("int8", tuple(worst_first[:count])): 0.005 for count in (3, 4)}
    passed = climb_down(TARGET, Table(drops))
    assert passed.conversion.keep_float == ("c", "f", "a")
    assert [len(a["float_layers"]) for a in passed.attempts] == [0, 1, 2, 4, 3]
    assert [bool(a["failures"]) for a in passed.attempts] == [True, True, True, False, False]


@pytest.mark.parametrize(("layers", "most"), [(64, 32), (63, 16), (2, 1), (1, 0)])
def test_no_more_than_half_of_the_layers_are_given_back(layers: int, most: int) -> None:
    names = tuple(f"layer {index}" for index in range(layers))
    passed = climb_down(TARGET, Table({("fp16", ()): 0.0}, layers=names))
    assert passed.conversion.precision == "fp16"
    assert max(len(attempt["float_layers"]) for attempt in passed.attempts) == most


def test_layers_are_ranked_by_how_much_each_alone_in_float_brings_back() -> None:
    drops = {("int8", (layer,)): place / 10 for place, layer in enumerate("dbcaefhg")}
    ranking = rank_layers(Conversion(RECIPE, TARGET, "int8"), LAYERS, Table(drops))
    assert "".join(name for name, _ in ranking) == "dbcaefhg"
    assert [round(likeness, 9) for _, likeness in ranking[:3]] == [1.0, 0.9, 0.8]


def test_when_int8_is_beyond_help_the_next_precision_is_taken_and_every_attempt_kept() -> None:
    passed = climb_down(TARGET, Table({("fp16", ()): 0.0}))
    assert passed.conversion.precision == "fp16"
    assert [len(a["float_layers"]) for a in passed.attempts] == [0, 1, 2, 4, 0]


def test_layers_that_cannot_be_ranked_leave_the_next_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Table, conversion: Conversion, layers: tuple[str, ...]) -> list[Converted]:
        raise ConversionError("t in int8 took more than 900 s and was stopped")

    monkeypatch.setattr(Table, "convert_each", refuse)
    workshop = Table({("fp16", ()): 0.0})
    assert climb_down(TARGET, workshop).conversion.precision == "fp16"
    assert "t: t in int8 took more than 900 s and was stopped" in workshop.told


def test_a_count_of_layers_that_cannot_be_converted_costs_none_that_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    convert = Table.convert

    def refuse_three(self: Table, conversion: Conversion) -> Converted:
        if len(conversion.keep_float) == 3:
            raise ConversionError("t in int8 was killed by SIGKILL")
        return convert(self, conversion)

    monkeypatch.setattr(Table, "convert", refuse_three)
    workshop = Table({("int8", LAYERS[:4]): 0.0, ("fp16", ()): 0.0})
    assert climb_down(TARGET, workshop).conversion.keep_float == LAYERS[:4]
    assert "t: t in int8 was killed by SIGKILL" in workshop.told


def test_strict_stops_with_the_numbers() -> None:
    with pytest.raises(GateError, match=r"int8: mIoU drops by 0\.500, limit 0\.010"):
        climb_down(TARGET, Table({}), strict=True)


def test_a_ladder_without_a_rung_that_holds_names_all_of_them() -> None:
    with pytest.raises(GateError, match=r"(?s)int8: .*fp16: "):
        climb_down(TARGET, Table({}))
