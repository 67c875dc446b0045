import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Lens:
    width_mm: float
    mount: Literal["c", "cs", 7] = "c"

    def __post_init__(self) -> None:
        if self.width_mm < 0:
            raise ValueError(f"width_mm is {self.width_mm}; expected 0 or more")


@dataclass(frozen=True)
class Camera:
    name: str
    frames: int
    lens: Lens
    on: bool = False
    spare: Lens | None = None
    size: tuple[int, int] | None = None
    lenses: tuple[Lens, ...] = ()
    names: list[str] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    rate: int | str = 0
    folder: Path | None = None
    anything: Any = None


NUMBERS = st.floats(0, 1e300) | st.integers(0, 10**9)
LENSES = st.builds(Lens, st.floats(0, 1e9), st.sampled_from(["c", "cs", 7]))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
CAMERAS = st.builds(
    Camera,
    name=st.text(),
    frames=st.integers(),
    lens=LENSES,
    on=st.booleans(),
    spare=st.none() | LENSES,
    size=st.none() | st.tuples(st.integers(), st.integers()),
    lenses=st.lists(LENSES, max_size=3).map(tuple),
    names=st.lists(st.text(), max_size=3),
    gains=st.dictionaries(st.text(), st.floats(0, 1)),
    notes=st.dictionaries(st.text(), st.integers() | st.text()),
    rate=st.integers() | st.text(),
    folder=st.none() | st.builds(Path, st.text("abc/.")),
    anything=st.none() | st.text() | st.lists(st.integers()),
)
WHOLE = {"name": "left", "frames": 3, "lens": {"width_mm": 4.5}}
KEYS = [entry for entry in Camera.__dataclass_fields__]


@given(camera=CAMERAS)
def test_a_record_goes_out_to_a_table_and_comes_back_equal(camera: Camera) -> None:
    assert from_table(Camera, asdict(camera), "here") == camera
    assert from_table(Camera, json.loads(json.dumps(asdict(camera), default=str)), "here") == camera


@given(table=JSON | st.dictionaries(st.sampled_from(KEYS) | st.integers(), JSON))
def test_junk_is_the_one_error_on_one_line(table: Any) -> None:
    with pytest.raises(TableError) as caught:
        from_table(Camera, table, "here")
    assert str(caught.value).startswith("here: ")
    assert len(str(caught.value).splitlines()) == 1


@given(key=st.sampled_from([*KEYS, "lense"]), value=JSON)
def test_junk_in_one_place_is_taken_or_the_one_error(key: str, value: Any) -> None:
    try:
        camera = from_table(Camera, {**WHOLE, key: value}, "here")
    except TableError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert from_table(Camera, asdict(camera), "here") == camera or "NaN" in json.dumps(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 3}, r"^a\.toml: unknown keys \['frame'\]; valid keys are .*; did you mean fra"),
        ({"lens": {}}, r"^a\.toml: lens: missing keys \['width_mm'\]$"),
        ({"lens": {"width_mm": -1}}, r"^a\.toml: lens: width_mm is -1\.0; expected 0 or more$"),
        (
            {"lens": {"width_mm": 1, "mount": "d"}},
            r"lens\.mount: expected one of 'c', 'cs', 7, got",
        ),
        ({"lens": {"width_mm": 1, "mount": 7.0}}, r"lens\.mount: expected one of"),
        ({"lens": [1]}, r"^a\.toml: lens: expected a table, got \[1\]$"),
        ({"lens": {"width_mm": True}}, r"lens\.width_mm: expected int or float, got True"),
        ({"lens": {"width_mm": math.nan}}, r"width_mm: expected a finite number, got nan"),
        ({"lens": {"width_mm": 10**400}}, r"width_mm: expected a finite number, got 1000"),
        ({"lens": {"width_mm": 16**5000}}, r"expected a finite number, got a number too long"),
        ({"frames": True}, r"^a\.toml: frames: expected int, got True$"),
        ({"frames": 2.0}, r"frames: expected int, got 2\.0"),
        ({"on": 1}, r"on: expected bool, got 1"),
        ({"name": "x" * 999, "on": "y" * 999}, r"on: expected bool, got 'y{30,40}\.\.\.y{30,40}'$"),
        ({"size": [1]}, r"size: expected 2 values, got \[1\]"),
        ({"size": [1, "2"]}, r"size\[1\]: expected int, got '2'"),
        ({"size": "12"}, r"size: expected list, got '12'"),
        ({"lenses": [{"width_mm": 1}, {"w": 1}]}, r"lenses\[1\]: unknown keys \['w'\]"),
        ({"gains": {"red": "much"}}, r"gains\.red: expected int or float, got 'much'"),
        ({"gains": {"a\nb": "much"}}, r"gains\.'a\\nb': expected int or float"),
        ({"gains": {3: 0.5}}, r"gains\.3: expected str, got 3"),
        ({"rate": None}, r"rate: expected str, got None"),
        ({"spare": 3}, r"spare: expected a table, got 3"),
        ({"folder": 3}, r"folder: expected Path, got 3"),
        ({"on": None}, r"on: expected bool, got None"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        from_table(Camera, {**WHOLE, **change}, "a.toml")


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(TableError, match=r"^manifest: missing keys \['frames', 'lens'\]$"):
        from_table(Camera, {"name": "left"}, "manifest")


def test_keys_of_a_newer_writer_are_left_out_where_they_may_be() -> None:
    newer = {**WHOLE, "colour": 1, "lens": {"width_mm": 1, "glass": "x"}}
    assert from_table(Camera, newer, "a", ignore_unknown=True) == Camera("left", 3, Lens(1.0))


def test_an_int_stands_for_a_float_and_becomes_one() -> None:
    width_mm = from_table(Lens, {"width_mm": 3}, "a").width_mm
    assert (width_mm, type(width_mm)) == (3.0, float)


@dataclass(frozen=True)
class Percentiles:
    p99_9: float = field(metadata={"key": "p99.9"})


def test_a_key_that_is_no_name_in_python_stands_in_the_metadata() -> None:
    assert from_table(Percentiles, {"p99.9": 3}, "a") == Percentiles(3.0)
    with pytest.raises(TableError, match=r"^a: missing keys \['p99\.9'\]$"):
        from_table(Percentiles, {}, "a")
    with pytest.raises(TableError, match="unknown keys"):
        from_table(Percentiles, {"p99.9": 3, "p99_9": 3}, "a")


@dataclass(frozen=True)
class Columns:
    t: tuple[float, ...] = ()
    ms: list[float | None] = field(default_factory=list)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "1", True, None])
def test_one_bad_number_is_found_in_a_long_column(bad: Any) -> None:
    numbers = [0.5] * 1000
    assert from_table(Columns, {"t": numbers, "ms": numbers}, "a") == Columns(
        (0.5,) * 1000, numbers
    )
    with pytest.raises(TableError, match=r"^a: t\[1000\]: expected"):
        from_table(Columns, {"t": [*numbers, bad]}, "a")
    if bad is not None:
        with pytest.raises(TableError, match=r"^a: ms\[1000\]: expected"):
            from_table(Columns, {"ms": [*numbers, bad]}, "a")


def test_numbers_whose_sum_is_none_are_still_numbers() -> None:
    assert from_table(Columns, {"t": [1.7e308, 1.7e308]}, "a").t == (1.7e308, 1.7e308)
