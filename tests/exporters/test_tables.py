"""What the exporter says of a bundle in words: bounds, and int8 that is no faster."""

import dataclasses
import io
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import EXPORTERS, Exporter, find_exporter, load_exporter
from fastseg_exporters.gate.record import bounds_ms
from fastseg_exporters.tables import (
    artifact_table,
    bound_lines,
    slower_than_float,
    target_rows,
    target_table,
)
from fastseg_runtime.bundle.manifest import (
    Artifact,
    ClassInfo,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
)
from fastseg_targets.target import load_target, target_names
from rich.console import Console

MANIFEST = Manifest(
    name="street",
    created="",
    tool="test",
    model=ModelInfo("base", parameters=2_000_000, macs=5_000_000_000, checkpoint_sha256="0" * 64),
    classes=(ClassInfo("road", (1, 2, 3)),),
    input=InputSpec(1024, 512),
    output=OutputSpec(),
)


def artifact(target: str, latency_ms: float, precision: str = "int8") -> Artifact:
    return Artifact(target, "onnx", precision, "e", (), verification={"latency_ms": latency_ms})


def test_int8_that_is_slower_than_float_is_told() -> None:
    pair = (artifact("cpu-fp32", 10.0), artifact("cpu-int8", 12.5))
    assert slower_than_float(dataclasses.replace(MANIFEST, artifacts=pair)) == [
        "cpu-int8 is slower than cpu-fp32 on this machine (1.25x the time)"
    ]


def test_int8_that_is_faster_or_has_no_sister_is_not_mentioned() -> None:
    several = (artifact("cpu-fp32", 10.0), artifact("cpu-int8", 4.0), artifact("jetson-int8", 99.0))
    assert slower_than_float(dataclasses.replace(MANIFEST, artifacts=several)) == []


def test_an_int8_target_that_stepped_down_to_float_is_not_called_slower_than_float() -> None:
    pair = (artifact("cpu-fp32", 10.0, "fp32"), artifact("cpu-int8", 12.5, "fp32"))
    assert slower_than_float(dataclasses.replace(MANIFEST, artifacts=pair)) == []


def test_a_bound_is_the_work_at_the_boards_peak_and_is_called_a_bound() -> None:
    bounds = bounds_ms(MANIFEST, load_target("jetson-int8"), "int8")
    assert bounds["orin-nano"] == pytest.approx(1e3 * 2 * 5e9 / 33423.4e9, abs=1e-3)
    held = dataclasses.replace(artifact("jetson-int8", 1.0), extra={"bounds_ms": bounds})
    lines = bound_lines(dataclasses.replace(MANIFEST, artifacts=(held,)))
    assert len(lines) == len(bounds)
    for line in lines:
        assert "bound, not a prediction: no faster than" in line


def test_lower_precision_never_has_a_higher_bound() -> None:
    by_precision = [
        bounds_ms(MANIFEST, load_target("jetson-int8"), name) for name in ("fp32", "fp16", "int8")
    ]
    for board in by_precision[0]:
        fp32, fp16, int8 = (bounds[board] for bounds in by_precision)
        assert fp32 >= fp16 >= int8 > 0


def test_every_target_says_what_it_needs_and_what_proves_it() -> None:
    for row in target_rows(map(load_target, target_names())):
        assert row["needs"].startswith("pip install 'fastseg-edge[")
        assert row["verified_by"] != "its own backend", row["target"]


def test_an_exporter_is_here_only_with_all_that_it_needs() -> None:
    assert find_exporter("pytorch").is_installed
    for name in ("no_such_module", "no_such_package.client"):
        lacking = dataclasses.replace(find_exporter("pytorch"), modules=("torch", name))
        assert not lacking.is_installed


def test_a_converter_that_is_not_here_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_converter.py").write_text("import acme")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = Exporter("mine", "my_converter:export", modules=("acme",), install="pip install acme")
    monkeypatch.setitem(EXPORTERS, "mine", mine)
    with pytest.raises(ImportError, match=r"No module named 'acme'; it needs acme: pip install"):
        load_exporter("mine")


def shown(table: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [60, 80, 132])
def test_the_list_of_targets_has_every_name_and_extra_whole(width: int) -> None:
    targets = [load_target(name) for name in target_names()]
    mine = dataclasses.replace(targets[0], name="a-board-of-mine-[red]-with-a-long-name")
    text = shown(target_table([*targets, mine]), width)
    for target in (*targets, mine):
        assert target.name in text
        assert find_exporter(target.exporter).install.split()[-1] in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 132])
def test_the_artifacts_of_a_bundle_have_every_column_and_brackets_whole(width: int) -> None:
    proof = {"worst_class": "sign [bold]symbol", "worst_class_drop": 0.011, "latency_ms": 1234.5}
    one = dataclasses.replace(
        artifact("cpu-int8-weights", 1.0), precision="int8-weights", verification=proof
    )
    manifest = dataclasses.replace(MANIFEST, name="[tflite]", artifacts=(one,))
    text = shown(artifact_table(manifest), width)
    for part in (
        "[tflite], 1024x512",
        "cpu-int8-weights",
        "int8-weights",
        "1234.5",
        "[bold]symbol",
    ):
        assert part in text
    for column in ("made", "MB", "mIoU", "drop", "worst", "agree", "ms"):
        assert column in text


def test_what_nobody_has_seen_an_artifact_do_stands_beside_its_scores() -> None:
    plain, marked = artifact("cpu-fp32", 1.0), artifact("rockchip-int8", 1.0)
    marked = dataclasses.replace(marked, extra={"caveat": "simulated, not run on a board"})
    for held, told in (((plain, marked), True), ((plain,), False)):
        text = io.StringIO()
        manifest = dataclasses.replace(MANIFEST, artifacts=held)
        Console(file=text, width=200).print(artifact_table(manifest))
        assert ("caveat" in text.getvalue()) == told
        assert ("simulated, not run on a board" in text.getvalue()) == told
