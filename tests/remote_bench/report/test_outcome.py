import re

import pytest
from fastseg_runtime.arrays.command import exit_code_help
from fastseg_runtime.bundle.reader import open_bundle
from remote_bench.analysis.requirements import parse
from remote_bench.host.errors import (
    EXIT_CODES,
    BenchError,
    BoardBusy,
    DeviceFailure,
    HostKeyRefused,
    MissingRequirement,
    Unreachable,
    UsageError,
)
from remote_bench.host.host import Interrupted
from remote_bench.report.outcome import check_requirements, deployment, document, exit_code, record

from tests.doubles.tiny_bundle import full_plan

ERRORS = [BenchError, UsageError, Unreachable, HostKeyRefused, MissingRequirement, DeviceFailure,
          BoardBusy, Interrupted]  # fmt: skip
VALID = {"verdict": "valid", "error": None, "fps": 50.0, "latency_ms": None}


def test_every_kind_of_failure_has_an_exit_code_of_its_own_that_help_explains():
    codes = [error.exit_code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    explained = re.findall(r"(\d+) ", exit_code_help(EXIT_CODES))
    assert set(codes) | {0, 3, 129, 143} == set(map(int, explained))


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (VALID, 0),
        ({**VALID, "verdict": "valid_with_notes"}, 0),
        ({**VALID, "verdict": "invalid"}, 3),
        ({**VALID, "error": {"kind": "oom"}}, 7),
        ({**VALID, "error": {"kind": "rebooted"}}, 7),
        ({**VALID, "error": {"kind": "no_engine"}}, 6),
        ({**VALID, "error": {"kind": "connection_lost"}}, 4),
        ({**VALID, "deployed": {"folder": "/app", "files": {}, "error": "no space"}}, 7),
        (BoardBusy("x"), 8),
    ],
)
def test_an_outcome_has_the_exit_code_of_its_kind(outcome, code):
    assert exit_code(outcome) == code


def test_a_missed_requirement_turns_a_valid_run_into_exit_code_3():
    report = dict(VALID)
    check_requirements(report, parse("fps>=60"))
    assert report["requirements"] == {
        "wanted": ["fps>=60"],
        "missed": ["fps>=60: measured 50"],
    }
    assert exit_code(report) == 3


def test_one_board_gives_its_report_and_several_a_list_with_the_failed_ones_in_it():
    assert document({"a": VALID}) is VALID
    both = document({"a": VALID, "b": Unreachable("no way")})
    assert both["reports"][0] is VALID
    assert both["reports"][1]["error"] == {"kind": "Unreachable", "message": "no way"}
    assert both["reports"][1]["verdict"] == "invalid"


def test_a_deployment_says_how_an_app_opens_what_was_measured():
    report = {**VALID, "bundle": {"target": "cpu-fp32"}}
    files = {"bundle.fastseg": "ab", "site/numpy/core.py": "cd"}
    said = deployment(report, {"folder": "/opt/my app", "files": files, "error": None})
    assert "PYTHONPATH='/opt/my app:/opt/my app/site' opens" in said
    assert "RealtimeSegmentation('/opt/my app/bundle.fastseg', target='cpu-fp32')" in said
    failed = {"folder": "/opt", "files": {}, "error": "no space"}
    assert deployment(report, failed) == "not deployed: no space"


def measured(target):
    return {
        **VALID, "run_id": "1", "created": "now", "tool": "t", "reasons": [], "engine": {},
        "bundle": {"target": target}, "power": None, "memory": {"peak_mb": 9.0}, "accuracy": None,
        "device": {"name": "n", "model": "m", "module": "", "jetpack": ""},
    }  # fmt: skip


def test_figures_are_recorded_at_the_artifact_that_ran_and_all_else_stays(tmp_path):
    path = full_plan().with_artifact("other", b"network").write(tmp_path / "a.fastseg")
    for _ in range(2):
        record(path, measured("cpu-fp32"))
    with open_bundle(path) as bundle:
        bundle.verify()
        assert [entry["fps"] for entry in bundle.artifact("cpu-fp32").benchmarks] == [50.0, 50.0]
        assert bundle.artifact("other").benchmarks == ()
        assert bundle.read("artifacts/other/model.onnx") == b"network"
    assert [file.name for file in tmp_path.iterdir()] == ["a.fastseg"]


def test_figures_of_another_target_are_refused_and_the_bundle_stays_as_it_was(tmp_path):
    path = full_plan().write(tmp_path / "a.fastseg")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no target 'cpu-int8'"):
        record(path, measured("cpu-int8"))
    assert path.read_bytes() == before
