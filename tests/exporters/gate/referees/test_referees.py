"""A referee of another distribution, in an environment of its own, from install to verdict."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastseg_exporters.gate.referees.install import install
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import (
    MAX_LINE,
    REFEREES,
    Referee,
    RefereeError,
    Verdict,
    referees,
    select_referees,
    verdicts_of,
)
from fastseg_runtime.bundle.manifest import Artifact, Manifest

from tests.doubles.tiny_bundle import empty_plan

ARTIFACT = Artifact("jetson-fp16", "onnx", "fp16", "artifacts/jetson-fp16/model.onnx", ())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fake(cache: Path, outside_packages: None, monkeypatch: pytest.MonkeyPatch) -> Referee:
    monkeypatch.setenv("FASTSEG_CACHE", str(cache))
    return referees()["fake"]


@pytest.fixture
def installed(fake: Referee) -> Referee:
    install(fake, lambda line: None)
    return fake


def heard(referee: Referee, content: bytes, folder: Path) -> Verdict:
    files, work = folder / "files", folder / "work"
    for made in (files, work):
        made.mkdir()
    (files / "model.onnx").write_bytes(content)
    return judge(referee, ARTIFACT, files, work)


def test_a_referee_that_is_not_installed_is_a_usage_error_that_says_how(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    for names in ("fake", "all"):
        with pytest.raises(RefereeError, match="make referees"):
            select_referees(names)
    with pytest.raises(RefereeError, match=r"no referee 'umpire'; choose of all, .*fake"):
        select_referees("fake,umpire")


def test_size_and_licence_are_told_before_anything_is_installed(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    there: list[bool] = []
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        there.append(fake.environment.exists())

    install(fake, tell)
    assert there == [False, True]
    assert "fetching 0 MB, 1 MB on disk" in lines[0]
    assert "MIT (LICENSE)" in lines[0]
    assert select_referees("fake,fake") == [fake] == select_referees("all")


def test_wheels_that_cannot_be_had_leave_no_referee_behind(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    pins = tmp_path / "pins.txt"
    pins.write_text(f"./nowhere-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n", "utf-8")
    monkeypatch.setattr(Referee, "requirements", pins)
    with pytest.raises(RefereeError, match=r"^fake cannot be installed: .*nowhere"):
        install(fake, lambda line: None)
    assert not fake.is_installed


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_referee_where_others_may_write_counts_as_absent(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    fake.environment.mkdir(parents=True)
    (fake.environment / "ready").touch()
    for folder in (fake.environment, fake.environment.parent):
        folder.chmod(0o755)
        assert fake.is_installed
    for mode in (0o777, 0o770):
        fake.environment.parent.chmod(mode)
        assert not fake.is_installed
        with pytest.raises(RefereeError, match="others can write to .*chmod 700"):
            install(fake, lambda line: None)


@pytest.mark.slow
def test_a_referee_counts_whatever_the_umask_that_it_was_installed_under(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    before = os.umask(0o002)  # of Debian and Ubuntu
    try:
        install(fake, lambda line: None)
    finally:
        os.umask(before)
    assert fake.is_installed


def test_its_python_sees_nothing_of_ours_and_its_litter_goes(
    installed: Referee, tmp_path: Path
) -> None:
    verdict = heard(installed, b"network", tmp_path)
    facts = {"sees_fastseg": False, "bytes": 7}
    assert verdict == Verdict("fake", "1.0", "accepted", "builds", facts, "a toolchain")
    assert not list(tmp_path.rglob("litter"))


def with_facts(fact: bytes) -> bytes:
    return b'say {"version": "1", "accepted": true, "says": "", "facts": {"fact": %b}}' % fact


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"crash", "was killed by SIGABRT"),
        (b"raise", "failed: RuntimeError: no such operator"),
        (b"say nothing", "gave no verdict"),
        (b"say {", "gave no verdict"),
        (b"say []", "gave no verdict: its answer: expected a table"),
        (b'say {"version": "1", "accepted": "yes", "says": ""}', "its answer: accepted"),
        (b'say {"version": "1", "accepted": true, "says": "\\u001b[2J"}', "says is no line"),
        (b"say " + b"[" * 30_000, "gave no verdict"),
        (with_facts(b"[" * 900 + b"]" * 900), "gave no verdict"),
        (with_facts(b"[" * 48 + b"]" * 48), "nested deeper than 50 levels"),
        (with_facts(b'"\\ud800"'), "surrogates not allowed"),
        (with_facts(b"9" * 21), "a number of 21 digits"),
        (with_facts(b'{"a": 1, "a": 2}'), "says 'a' twice"),
    ],
)
def test_a_referee_that_breaks_is_a_verdict_on_one_line(
    installed: Referee, content: bytes, says: str, tmp_path: Path
) -> None:
    verdict = heard(installed, content, tmp_path)
    assert verdict.outcome == "failed"
    assert says in verdict.says
    assert "\n" not in verdict.says


@pytest.mark.parametrize("fact", [b"[" * 47 + b"]" * 47, b"NaN", b"1e999", b"9" * 18, b'"\\u001b"'])
def test_whatever_a_bundle_can_hold_may_be_a_fact(
    installed: Referee, fact: bytes, tmp_path: Path
) -> None:
    verdict = heard(installed, with_facts(fact), tmp_path)
    assert verdict.outcome == "accepted"
    extra = {"referees": [dataclasses.asdict(verdict)]}
    artifact = dataclasses.replace(ARTIFACT, extra=extra)
    manifest = dataclasses.replace(empty_plan().manifest, artifacts=(artifact,))
    assert Manifest.from_json(manifest.to_json()).artifacts == (artifact,)


def test_a_referee_whose_python_went_away_is_a_verdict_too(
    fake: Referee, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "gone"))
    verdict = heard(fake, b"network", tmp_path)
    assert verdict.outcome == "failed" and verdict.says.startswith("does not start: ")


def test_a_referee_that_hangs_is_stopped(installed: Referee, tmp_path: Path) -> None:
    verdict = heard(dataclasses.replace(installed, timeout_s=0.5), b"hang", tmp_path)
    assert (verdict.outcome, verdict.says) == ("failed", "took more than 0 s and was stopped")


@pytest.mark.parametrize(("length", "outcome"), [(MAX_LINE, "refused"), (MAX_LINE + 1, "failed")])
def test_a_line_is_as_long_as_promised(
    installed: Referee, length: int, outcome: str, tmp_path: Path
) -> None:
    answer = json.dumps({"version": "1", "accepted": False, "says": "x" * length})
    assert heard(installed, f"say {answer}".encode(), tmp_path).outcome == outcome


def test_verdicts_come_back_from_the_manifest_and_nonsense_is_refused() -> None:
    verdict = Verdict("fake", "1.0", "refused", "no", {"layers": 3}, "a toolchain")
    table = {**dataclasses.asdict(verdict), "newer": 1}
    assert verdicts_of(dataclasses.replace(ARTIFACT, extra={"referees": [table]})) == [verdict]
    assert verdicts_of(ARTIFACT) == []
    for extra in ({"referees": "all"}, {"referees": [{**table, "outcome": "maybe"}]}):
        with pytest.raises(RefereeError, match="the bundle's verdicts make no sense"):
            verdicts_of(dataclasses.replace(ARTIFACT, extra=extra))


@pytest.mark.parametrize("name", REFEREES)
def test_every_referee_of_ours_pins_its_wheels_and_says_what_it_is_not(name: str) -> None:
    referee = REFEREES[name]
    pins = referee.requirements.read_text("utf-8").replace("\\\n", " ").splitlines()
    pins = [line for line in pins if line and not line.startswith("#")]
    assert pins and all("==" in line and "--hash=sha256:" in line for line in pins)
    assert referee.licence and referee.is_not and referee.title
    assert referee.download_mb > 0 and referee.installed_mb > 0


def test_the_command_lists_and_refuses_by_name(fake: Referee) -> None:
    command = [sys.executable, "-m", "fastseg_exporters.gate.referees"]
    listed = subprocess.run([*command, "list"], capture_output=True, text=True, check=True)
    assert "fake" in listed.stdout.split()
    wrong = subprocess.run([*command, "install", "umpire"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("referees: no referee 'umpire'; choose of ")
