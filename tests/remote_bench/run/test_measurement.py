"""What a board sends is data: bounded, checked, and never trusted to be what was agreed."""

import json
from functools import partial
from pathlib import Path

import pytest
from fastseg_targets.device import load_device
from remote_bench.analysis.comparison import compare
from remote_bench.analysis.requirements import parse
from remote_bench.host.errors import INVALID, UNTRUSTED, DeviceFailure, Unreachable
from remote_bench.host.host import Cancel
from remote_bench.host.local import LocalHost
from remote_bench.report.outcome import check_report, exit_code
from remote_bench.run.benchmark import Benchmark, Measurement, Prepared
from remote_bench.run.measurement import fetch_result, finish, follow, measure_in_turns
from remote_bench.run.preparation import Preparation

from tests.boards.measuring import SHORT, Watcher
from tests.boards.stand_ins import make_bundle
from tests.doubles.tiny_bundle import full_plan


class Board:
    """Answers as it was told to."""

    def __init__(self, events=(), result: bytes = b"") -> None:
        self.host = self
        self.name = "board"
        self._events, self._result = events, result

    def request(self, operation, **fields):
        return {}

    def upload(self, file, progress):
        return ""

    def agent_events(self, silent_s=0):
        return iter([*self._events, {"event": "ended", "status": 0, "stderr": "it fell over"}])

    def get(self, name, most_bytes):
        return self._result


def measured(board: Board, watch=None) -> tuple[Board, Measurement]:
    return board, Measurement(board, Benchmark(), watch or Watcher(), Cancel())


class Seen(Watcher):
    def progress(self, *numbers) -> None:
        self.phases.append(numbers)


def test_progress_that_is_no_number_is_zero():
    events = [
        {"event": "phase"},
        {"event": "progress", "done": "x", "total": float("nan"), "fps": [1]},
        {"event": "unheard of"},
        None,
    ]
    seen = Seen()
    assert follow(*measured(Board(events), seen))["status"] == 0
    assert seen.phases == ["None", (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("data", [{}, {"board": 1}, [], "x", 7])
def test_a_probe_of_another_form_is_the_boards_failure(data):
    with pytest.raises(DeviceFailure, match="probe"):
        Preparation(*measured(Board([{"event": "probe", "data": data}]))).probe()


def test_a_probe_that_never_came_quotes_what_the_agent_said():
    with pytest.raises(DeviceFailure, match="it fell over"):
        Preparation(*measured(Board())).probe()


@pytest.mark.parametrize("result", [b"", b"{", b"[]", b"{}", b'{"schema": NaN}', b"\xff"])
def test_a_result_of_another_form_is_the_boards_failure(result):
    with pytest.raises(DeviceFailure, match="not a result"):
        fetch_result(*measured(Board(result=result)), None, {"status": 0})


class Deploying(Board):
    hello, address, weakened = {"run": "run-x"}, "", ()
    asked = ()

    def request(self, operation, **fields):
        self.asked = (*self.asked, operation)
        return {"folder": "/app", "files": {"bundle.fastseg": "0" * 64}}

    def finish(self):
        return {}


def deployed_where(made_result, requirements=None, strict=False, **keys):
    board = Deploying(result=json.dumps(made_result(**keys)).encode())
    prepared = Prepared(Path("a.fastseg"), "0" * 64, full_plan().manifest,
                        load_device("orin-nano"), {}, (), None)  # fmt: skip
    measurement = Measurement(board, Benchmark(deploy="/app"), Watcher(), Cancel())
    check = partial(check_report, requirements=requirements, strict=strict)
    report = finish(board, measurement, prepared, check)
    assert ("deploy" in board.asked) == (report.deployed.error is None)
    return report


def test_what_keeps_the_limits_is_deployed(made_result):
    assert deployed_where(made_result, parse("fps>=10")).deployed.error is None


def test_what_misses_a_limit_is_not_deployed(made_result):
    report = deployed_where(made_result, parse("fps>=1000"))
    assert report.deployed.error.startswith("requirement missed: fps>=1000: measured")
    assert exit_code(report) == INVALID


def test_an_invalid_run_is_not_deployed(made_result):
    noted = {"seconds": 3, "latency_ms": lambda t: 60.0}  # few frames
    assert deployed_where(made_result, **noted).deployed.error is None
    report = deployed_where(made_result, strict=True, **noted)
    assert report.deployed.error.startswith("the run is invalid: --strict: a run with notes")
    assert exit_code(report) == UNTRUSTED


@pytest.mark.parametrize("broken", [Unreachable, DeviceFailure])
def test_a_link_that_breaks_after_the_result_came_takes_no_report(made_result, broken):
    class Breaking(Board):
        hello, address, weakened = {"run": "run-x"}, "", ()

        def request(self, operation, **fields):
            raise broken("the connection broke")

        def finish(self):
            raise broken("the connection broke")

    board, watch = Breaking(result=json.dumps(made_result()).encode()), Watcher()
    prepared = Prepared(Path("a.fastseg"), "0" * 64, full_plan().manifest,
                        load_device("orin-nano"), {}, (), None)  # fmt: skip
    measurement = Measurement(board, Benchmark(deploy="/app"), watch, Cancel())
    report = finish(board, measurement, prepared)
    assert report.fps == pytest.approx(100, rel=0.01) and report.error is None
    assert report.deployed.error == "the connection broke"
    assert watch.notes[-1].startswith("measured and fetched; not cleaned up")


@pytest.mark.slow
def test_a_run_in_turns_that_fails_leaves_those_before_it(monkeypatch, tmp_path):
    class Cutting(Watcher):
        def note(self, text) -> None:
            super().note(text)
            if text.startswith("run 8 of 8"):
                host.close()

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    host, bundle, watch = LocalHost(), make_bundle(tmp_path / "a.fastseg"), Cutting()
    measurement = Measurement(host, Benchmark(repeats=1, **SHORT), watch, Cancel())
    *sides, failed = measure_in_turns(measurement, (bundle, bundle), rounds=4)
    assert [len(side) for side in sides] == [3, 3]
    assert failed.startswith("a run failed, and compared are the 3 a side before it: localhost")


@pytest.mark.slow
def test_two_bundles_take_turns_on_one_locked_board(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    bundles = make_bundle(tmp_path / "a.fastseg"), make_bundle(tmp_path / "b.fastseg")
    watch, benchmark = Watcher(), Benchmark(repeats=1, **SHORT)
    measurement = Measurement(LocalHost(), benchmark, watch, Cancel())
    *sides, failed = measure_in_turns(measurement, bundles, rounds=3)
    assert not failed
    assert [note.split()[-1][0] for note in watch.notes if " of 6: " in note] == list("abbaab")
    assert [[report.bundle.path for report in side] for side in sides] == [
        [str(bundle)] * 3 for bundle in bundles
    ]
    answer = compare(*sides, in_turns=True)
    assert answer.answer != "not_comparable" or "others used" in answer.reasons[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.fastseg", "b.fastseg"]
