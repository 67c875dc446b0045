import re
from dataclasses import replace

import pytest
from fastseg_runtime.arrays.command import exit_code_help
from fastseg_runtime.bundle.reader import open_bundle
from remote_bench.analysis.report import BundleFacts, Deployment
from remote_bench.analysis.requirements import parse
from remote_bench.analysis.result import Failure
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
from remote_bench.report.outcome import (
    check_requirements,
    describe_deployment,
    document,
    exit_code,
    record,
)
from remote_bench.run.bundles import describe

from tests.doubles.tiny_bundle import full_plan

ERRORS = [BenchError, UsageError, Unreachable, HostKeyRefused, MissingRequirement, DeviceFailure,
          BoardBusy, Interrupted]  # fmt: skip


@pytest.fixture
def valid(report_of, made_result):
    """A report of a run of 100 FPS."""
    return report_of(made_result())


def test_every_kind_of_failure_has_an_exit_code_of_its_own_that_help_explains():
    codes = [error.exit_code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    explained = re.findall(r"(\d+) ", exit_code_help(EXIT_CODES))
    assert set(codes) | {0, 3, 9, 129, 143} == set(map(int, explained))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"verdict": "valid_with_notes"}, 0),
        ({"verdict": "invalid"}, 9),
        ({"error": Failure("oom", "")}, 7),
        ({"error": Failure("rebooted", "")}, 7),
        ({"error": Failure("no_engine", "")}, 6),
        ({"error": Failure("connection_lost", "")}, 4),
        ({"deployed": Deployment("/app", {}, "no space")}, 7),
    ],
)
def test_a_report_has_the_exit_code_of_its_kind(valid, change, code):
    assert exit_code(replace(valid, **change)) == code
    assert exit_code(BoardBusy("x")) == 8


def test_a_missed_requirement_turns_a_valid_run_into_exit_code_3(valid):
    report = check_requirements(valid, parse("fps>=160"))
    assert report.to_table()["requirements"] == {
        "wanted": ("fps>=160",),
        "missed": ("fps>=160: measured 100",),
        "margins": {"fps>=160": pytest.approx(-0.375)},
        "trusted": True,
        "measured": {"fps>=160": "100"},
    }
    assert exit_code(report) == 3
    assert check_requirements(valid, None) is valid


def test_a_limit_that_noise_may_decide_is_said_to_be_one(valid):
    noisy = replace(valid, fps=100.0, fps_ci95=(90.0, 110.0))
    for limit, said in ((95, "100, but the limit lies in its interval"), (80, "100")):
        check = check_requirements(noisy, parse(f"fps>={limit}")).requirements
        assert check.measured == {f"fps>={limit}": said} and check.missed == ()


@pytest.mark.parametrize("wanted", ["valid", "fps>=10,valid", "valid,fps>=160"])
def test_a_verdict_that_is_less_than_wanted_is_not_to_be_trusted(valid, wanted):
    noted = replace(valid, verdict="valid_with_notes")
    assert exit_code(check_requirements(noted, parse(wanted))) == 9
    assert exit_code(check_requirements(valid, parse("fps>=10,valid"))) == 0
    missed = check_requirements(noted, parse(wanted)).requirements.missed
    assert "valid: the verdict is valid with notes" in missed


def test_strict_makes_a_run_with_notes_invalid_and_says_so(valid):
    noted = replace(valid, verdict="valid_with_notes")
    strict = check_requirements(noted, None, strict=True)
    assert strict.verdict == "invalid" and strict.reasons[0].code == "strict"
    assert exit_code(strict) == 9
    assert check_requirements(valid, None, strict=True) is valid


def test_a_board_that_others_use_has_the_exit_code_of_a_busy_one(valid):
    assert exit_code(replace(valid, error=Failure("board_busy", "chrome 60%"))) == 8


def test_one_board_gives_its_report_and_several_a_list_with_the_failed_ones_in_it(valid):
    assert document({"a": valid}) == valid.to_table()
    both = document({"a": valid, "b": Unreachable("no way")})
    assert both["reports"][0] == valid.to_table()
    assert both["reports"][1]["error"] == {"kind": "Unreachable", "message": "no way"}
    assert both["reports"][1]["verdict"] == "invalid"


def test_a_deployment_says_how_an_app_opens_what_was_measured():
    files = {"bundle.fastseg": "ab", "site/numpy/core.py": "cd"}
    said = describe_deployment(Deployment("/opt/my app", files, None), "cpu-fp32")
    assert "PYTHONPATH='/opt/my app:/opt/my app/site' opens" in said
    assert "RealtimeSegmentation('/opt/my app/bundle.fastseg', target='cpu-fp32')" in said
    failed = Deployment("/opt", {}, "no space")
    assert describe_deployment(failed, "cpu-fp32") == "not deployed: no space"


def test_figures_are_recorded_at_the_artifact_that_ran_and_all_else_stays(valid, tmp_path):
    path = full_plan().with_artifact("other", b"network").write(tmp_path / "a.fastseg")
    with open_bundle(path) as bundle:
        facts = describe(bundle.manifest, "0" * 64, "cpu-fp32")
    measured = replace(valid, bundle=facts)
    for _ in range(2):
        record(path, measured)
    with open_bundle(path) as bundle:
        bundle.verify()
        rates = [entry["fps"] for entry in bundle.artifact("cpu-fp32").benchmarks]
        assert rates == [pytest.approx(100)] * 2
        assert bundle.artifact("other").benchmarks == ()
        assert bundle.read("artifacts/other/model.onnx") == b"network"
    assert [file.name for file in tmp_path.iterdir()] == ["a.fastseg"]


def test_figures_of_a_network_that_was_replaced_are_refused(valid, tmp_path):
    path = full_plan().write(tmp_path / "a.fastseg")
    before = path.read_bytes()
    facts = BundleFacts(target="cpu-fp32", artifact_sha256="0" * 64)
    with pytest.raises(ValueError, match="another network than the one measured; measure again"):
        record(path, replace(valid, bundle=facts))
    assert path.read_bytes() == before


def test_figures_of_another_target_are_refused_and_the_bundle_stays_as_it_was(valid, tmp_path):
    path = full_plan().write(tmp_path / "a.fastseg")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no target 'cpu-int8'"):
        record(path, replace(valid, bundle=BundleFacts(target="cpu-int8")))
    assert path.read_bytes() == before
