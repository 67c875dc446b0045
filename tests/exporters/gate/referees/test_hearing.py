"""A referee that simulates, from the command's plan to the bundle, the table and --json."""

import dataclasses
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.referees.install import install
from fastseg_exporters.gate.referees.referee import Referee, Verdict, referees, verdicts_of
from fastseg_exporters.tables import artifact_table, referee_lines, summary
from fastseg_runtime.bundle.manifest import Manifest
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_targets.target import load_target

DATA = "synthetic:size=96x64,train=4,val=4,test=2"


@pytest.fixture
def simulating(outside_packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Referee:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    referee = dataclasses.replace(referees()["fake"], frames=2)
    install(referee, lambda line: None)
    return referee


def heard(plan: Plan) -> tuple[Manifest, Verdict]:
    """Export, and return what the bundle on disk says."""
    assert export_bundle(plan).failed == {}
    with open_bundle(plan.out) as bundle:
        (artifact,) = bundle.manifest.artifacts
        (verdict,) = verdicts_of(artifact)
        return bundle.manifest, verdict


@pytest.mark.slow
def test_what_a_referee_says_and_simulates_is_in_the_bundle_and_is_told(
    simulating: Referee, source: NetworkSource, tmp_path: Path, converted_here: None
) -> None:
    target, out = load_target("cpu-fp32"), tmp_path / "tiny.fastseg"
    plan = Plan(Recipe(source), (target,), out, DATA, 4, referees=(simulating,))
    manifest, verdict = heard(plan)
    assert (verdict.outcome, verdict.is_not) == ("accepted", "a toolchain")
    found = verdict.facts["verification"]
    assert found["images"] == 2
    assert found["agreement"] == 0  # it gave one class everywhere, the network another
    assert found["miou_drop"] == found["reference_miou"] - found["miou"]

    assert summary(manifest.artifacts[0])["referees"] == [dataclasses.asdict(verdict)]
    assert "fake accepted" in str(artifact_table(manifest).rows)
    assert referee_lines(manifest) == [
        "cpu-fp32: fake 1.0 accepted it: builds",
        "fake is not a toolchain",
    ]

    (simulating.environment / "echo").touch()
    _, verdict = heard(dataclasses.replace(plan, resume=True))
    assert verdict.outcome == "failed"
    assert verdict.says.startswith(
        "gave outputs that cannot be: the engine gave uint8 (1, 64, 96, 3)"
    )
