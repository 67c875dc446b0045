import dataclasses
from pathlib import Path

import pytest
from fastseg_targets.device import load_device
from remote_bench.host.errors import UsageError
from remote_bench.run.benchmark import Benchmark, Prepared, Untrained
from remote_bench.run.detach import DetachedRun, load_run

from tests.doubles.tiny_bundle import full_plan

PREPARED = Prepared(
    bundle=Path("a.fastseg"),
    bundle_sha256="0" * 64,
    manifest=full_plan().manifest,
    device=load_device("generic-x86"),
    probe={"python": {"version": [3, 11]}},
    runtime_paths=("site", "runtime.zip"),
    frames=None,
)
RUN = DetachedRun("run-x", "board", Benchmark(untrained=Untrained("nano", 64, 32)), PREPARED)


@pytest.mark.parametrize(
    "benchmark", [RUN.benchmark, Benchmark(Path("b.fastseg"), fps=30.0, frames=Path("f"))]
)
def test_what_is_remembered_of_a_run_comes_back_as_it_was(tmp_path, monkeypatch, benchmark):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = dataclasses.replace(RUN, benchmark=benchmark)
    run.save()
    assert load_run("run-x") == run
    run.forget()
    with pytest.raises(UsageError, match="no detached run run-x"):
        load_run("run-x")


def test_what_another_version_remembers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    RUN.save()
    (file,) = tmp_path.rglob("run-x.json")
    file.write_text(file.read_text().replace("runtime_paths", "paths"))
    with pytest.raises(UsageError, match=r"run-x\.json: prepared: unknown keys \['paths'\]"):
        load_run("run-x")
