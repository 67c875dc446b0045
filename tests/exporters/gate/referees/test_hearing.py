"""A referee that simulates, from the command's plan to the bundle, the table and --json."""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.referees.hearing import refusal
from fastseg_exporters.gate.referees.install import install
from fastseg_exporters.gate.referees.referee import Referee, Verdict, referees, verdicts_of
from fastseg_exporters.tables import artifact_table, referee_lines, summary
from fastseg_runtime.bundle.manifest import Artifact, Manifest
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


@pytest.mark.parametrize(
    ("outcome", "agreement", "says"),
    [
        ("accepted", 0.8, ""),
        ("accepted", 0.799, "agreement 0.799 in the simulator of own, limit 0.800"),
        ("refused", 1.0, "own refused it: no such op"),
        ("failed", None, "own failed it: no such op"),
        ("accepted", None, ""),
    ],
)
def test_the_referee_whose_toolchain_made_an_artifact_refuses_it(
    outcome: Any, agreement: float | None, says: str
) -> None:
    facts = {} if agreement is None else {"verification": {"agreement": agreement}}
    verdicts = [
        Verdict("other", "1", "refused", "whatever"),
        Verdict("own", "1", outcome, "no such op", facts),
    ]
    extra = {"referees": [dataclasses.asdict(verdict) for verdict in verdicts]}
    assert refusal("own", Artifact("npu", "qnn", "int8", "model", (), extra=extra)) == says


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

    for output, says in no_outputs():
        (simulating.environment / "output").write_bytes(output)
        _, verdict = heard(dataclasses.replace(plan, resume=True))
        assert verdict.outcome == "failed"
        assert verdict.says.startswith(f"gave outputs that cannot be: {says}")


def no_outputs() -> Iterator[tuple[bytes, str]]:
    """Yield what is no class map, and how that begins to be said."""
    picture, pickled, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(picture, np.zeros((1, 64, 96, 3), np.uint8))
    np.save(pickled, np.array([{}]))
    np.savez(archive, classes=np.zeros((1, 64, 96), np.uint8))
    yield picture.getvalue(), "the engine gave uint8 (1, 64, 96, 3)"
    yield pickled.getvalue(), "Object arrays cannot be loaded"
    yield archive.getvalue(), "the magic string is not correct"
    yield b"", ""
    for claim in ("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999,)}", "(" * 99):
        yield b"\x93NUMPY\x01\x00" + len(claim).to_bytes(2, "little") + claim.encode(), ""
