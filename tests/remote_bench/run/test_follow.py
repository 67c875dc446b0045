"""What a board sends is data: bounded, checked, and never trusted to be what was agreed."""

import pytest
from remote_bench.host.errors import DeviceFailure
from remote_bench.host.watch import Cancel
from remote_bench.run.follow import fetch_result, follow, probe_board
from remote_bench.run.plan import Plan


class Board:
    """Answers as it was told to."""

    def __init__(self, events=(), result: bytes = b"") -> None:
        self.host, self.token = self, "t"
        self.name = "board"
        self._events, self._result = events, result

    def request(self, operation, **fields):
        return {}

    def agent_events(self, silent_s=0):
        return iter([*self._events, {"event": "ended", "status": 0, "stderr": "it fell over"}])

    def get(self, name, most_bytes):
        return self._result


class Seen:
    def __init__(self) -> None:
        self.seen: list = []

    def phase(self, name) -> None:
        self.seen.append(name)

    def progress(self, *numbers) -> None:
        self.seen.append(numbers)

    def note(self, text) -> None:
        pass


def test_progress_that_is_no_number_is_zero():
    events = [
        {"event": "phase"},
        {"event": "progress", "done": "x", "total": float("nan"), "fps": [1]},
        {"event": "unheard of"},
        None,
    ]
    seen = Seen()
    assert follow(Board(events), seen, Cancel())["status"] == 0
    assert seen.seen == ["None", (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("data", [{}, {"board": 1}, [], "x", 7])
def test_a_probe_of_another_form_is_the_boards_failure(data):
    with pytest.raises(DeviceFailure, match="probe"):
        probe_board(Board([{"event": "probe", "data": data}]), Cancel())


def test_a_probe_that_never_came_quotes_what_the_agent_said():
    with pytest.raises(DeviceFailure, match="it fell over"):
        probe_board(Board(), Cancel())


@pytest.mark.parametrize("result", [b"", b"{", b"[]", b"{}", b'{"schema": NaN}', b"\xff"])
def test_a_result_of_another_form_is_the_boards_failure(result):
    with pytest.raises(DeviceFailure, match="not a result"):
        fetch_result(Board(result=result), {"status": 0}, Plan(), None)
