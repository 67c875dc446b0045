"""--compare: every artifact is run and timed here, or it says what it would need."""

import dataclasses
import json
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.compare import Comparison, compare_bundle
from fastseg_exporters.tables import comparison_table, missing_lines
from fastseg_runtime.bundle.writer import entry, read_members, write_bundle
from fastseg_targets.target import load_target

pytestmark = pytest.mark.slow
DATA = "synthetic:size=96x64,train=4,val=3,test=2"
TARGETS = tuple(map(load_target, ("cpu-int8-weights", "cpu-fp32", "jetson-fp16", "pytorch")))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with four targets, and a fifth in a format that nothing here opens."""
    path = tmp_path_factory.mktemp("compare") / "tiny.fastseg"
    plan = Plan(
        Recipe(NetworkSource(str(checkpoint)), Calibration(DATA, 2)), TARGETS, path, DATA, 3
    )
    assert export_bundle(plan).failed == {}
    manifest, members = read_members(path)
    strange = dataclasses.replace(
        manifest.artifacts[1],
        target="toaster",
        format="toast",
        requires={"backend": "toaster", "min_version": "1"},
    )
    artifacts = (*manifest.artifacts, strange)
    write_bundle(path, dataclasses.replace(manifest, artifacts=artifacts), members)
    return path


@pytest.fixture(scope="module")
def compared(bundle: Path, checkpoint: Path) -> Comparison:
    return compare_bundle(bundle, NetworkSource(str(checkpoint)).open())


def test_every_artifact_that_runs_here_is_scored_on_the_data_of_its_export(
    compared: Comparison,
) -> None:
    rows = {row.artifact.target: row for row in compared.rows}
    assert (compared.data, compared.images) == ("synthetic val", 3)
    for name in ("cpu-fp32", "cpu-int8-weights", "pytorch", "jetson-fp16"):
        found = rows[name].found
        assert found is not None and found.agreement >= 0.99
        assert found.miou is not None and found.miou_drop == pytest.approx(0, abs=0.01)


def test_times_are_measured_and_only_by_the_engine_an_artifact_is_for(
    compared: Comparison,
) -> None:
    rows = {row.artifact.target: row for row in compared.rows}
    assert (rows["cpu-fp32"].latency_ms or 0) > 0
    assert rows["jetson-fp16"].latency_ms is None
    assert rows["jetson-fp16"].not_here == "not timed here: needs tensorrt"


def test_what_nothing_here_opens_says_what_it_needs(compared: Comparison) -> None:
    (row,) = (row for row in compared.rows if row.artifact.target == "toaster")
    assert row.found is None and row.latency_ms is None
    assert row.not_here.startswith("not run here: ")
    assert "toaster" in row.not_here


def test_an_artifact_that_its_engine_cannot_open_leaves_the_others_compared(
    bundle: Path, tmp_path: Path
) -> None:
    manifest, members = read_members(bundle)
    by_target = {artifact.target: artifact for artifact in manifest.artifacts}
    pair, broken = [by_target["cpu-fp32"], by_target["jetson-fp16"]], b"no graph"
    files = tuple(entry(file.path, broken) for file in pair[1].files)
    pair[1] = dataclasses.replace(pair[1], files=files)
    members |= {file.path: broken for file in files}
    path = tmp_path / "half.fastseg"
    write_bundle(path, dataclasses.replace(manifest, artifacts=tuple(pair)), members)
    whole, damaged = compare_bundle(path, data=DATA, count=2).rows
    assert whole.found is not None and whole.found.agreement == 1.0
    assert damaged.found is None
    assert damaged.not_here.startswith("not run here: ") and "is damaged" in damaged.not_here


def test_without_the_network_the_bundles_float_artifact_stands_for_it(bundle: Path) -> None:
    found = compare_bundle(bundle, data=DATA, count=2)
    assert found.reference == "cpu-fp32 of the bundle"
    (row,) = (row for row in found.rows if row.artifact.target == "cpu-fp32")
    assert row.found is not None and row.found.agreement == 1.0


def test_a_bundle_of_int8_alone_is_not_compared_with_itself(bundle: Path, tmp_path: Path) -> None:
    manifest, contents = read_members(bundle)
    only = tuple(a for a in manifest.artifacts if a.target == "cpu-int8-weights")
    write_bundle(tmp_path / "int8.fastseg", dataclasses.replace(manifest, artifacts=only), contents)
    with pytest.raises(ValueError, match="no float artifact to compare with: name the network"):
        compare_bundle(tmp_path / "int8.fastseg", data=DATA, count=2)


def test_another_network_is_no_reference(bundle: Path, checkpoint: Path) -> None:
    network = NetworkSource(str(checkpoint)).open()
    with pytest.raises(ValueError, match="was made of another network"):
        compare_bundle(bundle, dataclasses.replace(network, sha256="0" * 64))


def test_the_network_is_seen_at_the_bundles_size(bundle: Path, checkpoint: Path) -> None:
    network = NetworkSource(str(checkpoint), size=(192, 128)).open()
    rows = {row.artifact.target: row for row in compare_bundle(bundle, network).rows}
    found = rows["cpu-fp32"].found
    assert found is not None and found.agreement >= 0.99


def test_data_that_moved_are_named_and_generated_scenes_taken(bundle: Path, tmp_path: Path) -> None:
    manifest, members = read_members(bundle)
    moved = [
        dataclasses.replace(a, extra={**a.extra, "options": {"verify": "camvid:moved"}})
        for a in manifest.artifacts
        if a.target == "cpu-fp32"
    ]
    path, told = tmp_path / "moved.fastseg", []
    write_bundle(path, dataclasses.replace(manifest, artifacts=tuple(moved)), members)
    found = compare_bundle(path, count=2, tell=told.append)
    assert "moved" in told[0]
    assert found.data == "generated scenes"


def test_the_table_and_the_json_have_a_row_for_each(compared: Comparison) -> None:
    assert len(comparison_table(compared).rows) == len(compared.rows) == 5
    assert "jetson-fp16: not timed here: needs tensorrt" in missing_lines(compared)
    document = json.loads(json.dumps(compared.to_table()))
    assert {"target", "precision", "bytes", "miou", "agreement", "latency_ms"} <= set(
        document["artifacts"][0]
    )
