"""Boards that start slowly, hang or flood."""

import io
import itertools
import os
import sys
import time
from pathlib import Path

import pytest
from remote_bench.host.errors import DeviceFailure, Unreachable
from remote_bench.host.local import LocalHost
from remote_bench.host.ssh import CONNECT_S
from remote_bench.keeper.wire import SILENCE_S
from remote_bench.link.connection import LIMITS, Connection, Limits

TOKEN = "t0k"  # as each Connection has one; see the fixture
HELLO = f"""echo '@{TOKEN} {{"event": "hello"}}'"""
FLOOD = f"""yes '@{TOKEN} {{"event": "progress"}}'"""


@pytest.fixture
def host_with(tmp_path, monkeypatch):
    """Return a host whose python3 runs a shell script in our program's place."""
    monkeypatch.setattr("secrets.token_hex", lambda count: TOKEN)

    def make(script: str) -> LocalHost:
        python = tmp_path / "python3"
        python.write_text(f"#!/bin/sh\n[ $# = 2 ] && exit\n{script}\n")  # 2: the version check
        python.chmod(0o755)
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        return LocalHost({"TMPDIR": str(tmp_path), "PATH": path})

    return make


def test_a_python_that_hangs_is_told_from_a_board_that_hangs(host_with):
    host = host_with("echo starting; cat >/dev/null; exit")
    with pytest.raises(Unreachable, match=r"Python did not start within 1 s, and said: starting"):
        Connection(host, Limits(start_s=1))


@pytest.mark.slow  # longer than a shell may take
def test_a_python_that_starts_slowly_is_waited_for(host_with, tmp_path):
    host = host_with(f'sleep 5; exec {sys.executable} "$@"')
    with Connection(host, Limits(shell_s=3)) as session:
        assert session.hello["python"]
    assert not list(Path(tmp_path).glob("remote_bench*"))


def test_a_login_shell_that_chatters_without_end_gives_no_sign_of_life(monkeypatch):
    monkeypatch.setattr("remote_bench.link.payload.COMMAND", "exec yes Press any key")
    with pytest.raises(Unreachable, match="did not start /bin/sh within 1 s.* / Press any key"):
        Connection(LocalHost(), Limits(shell_s=1))


def test_a_flood_of_events_that_nothing_waits_for_is_called_one(host_with):
    flooded = pytest.raises(DeviceFailure, match="sent more than 10000 events")
    host = host_with(f"{HELLO}; exec {FLOOD}")
    with Connection(host, Limits(keeper_s=1)) as session, flooded:
        session.request("lock")  # which has no reply


def test_a_flood_of_events_that_are_taken_is_none(host_with):
    with Connection(host_with(f"{HELLO}; exec {FLOOD}")) as session:
        events = itertools.islice(session.agent_events(), 30_000)
        assert sum(event is not None for event in events) > 10_000
        session.close()


def test_a_request_waits_no_longer_than_it_says_while_somebody_is_told(host_with):
    alive = f"""while echo '@{TOKEN} {{"event": "alive"}}'; do sleep 0.2; done"""
    with Connection(host_with(f"{HELLO}; {alive}"), Limits(reply_s=2)) as session:
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="no answer within"):
            session.request("lock", on_wait=lambda: None)
        assert time.monotonic() - begin < 3.9
        session.close()


def test_a_peer_here_that_freezes_is_given_up_in_the_middle_of_what_is_sent_to_it(host_with):
    with Connection(host_with(f"{HELLO}; exec sleep 6"), Limits(keeper_s=1)) as session:
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="no sign of life for 1 s"):
            session.request("lock", text="more than a pipe holds " * 50_000)
        assert time.monotonic() - begin < 4


def test_what_a_keeper_does_not_know_is_refused_and_the_connection_goes_on(tmp_path):
    with Connection(LocalHost({"TMPDIR": str(tmp_path)}), base=str(tmp_path)) as session:
        with pytest.raises(DeviceFailure, match=r"expected one of .*, got 'serve'"):
            session.request("serve")
        session.request("room", bytes=1)


def answering(operation: str, *events: str) -> str:
    """Return a program on the board that answers one request."""
    lines = "; ".join(f"echo '@{TOKEN} {{{event}}}'" for event in events)
    asked = f"""grep -qm1 '^{{.*"event": "{operation}"'"""
    return f"{HELLO}; {asked}; {lines}; exec cat >/dev/null"


@pytest.mark.parametrize("have", ["", '"have": -5,', '"have": "x",', '"have": 1e9,'])
def test_an_offer_that_makes_no_sense_is_a_failure_of_the_board(host_with, have):
    program = answering("offer", f'{have} "event": "reply"')
    with Connection(host_with(program)) as session:
        with pytest.raises(DeviceFailure, match=r"makes no sense, it has .* bytes of a file of 3"):
            session.upload(io.BytesIO(b"abc"), lambda done, size: None)
        session.close()


@pytest.mark.parametrize("count", ["null", "NaN", '"x"', "[]"])
def test_a_count_that_is_no_number_ends_no_connection(host_with, count):
    received = f'"event": "received", "bytes": {count}'
    program = answering("lock", received, '"event": "reply", "well": true')
    with Connection(host_with(program)) as session:
        assert session.request("lock")["well"]
        session.close()


def test_a_piece_of_a_file_that_is_none_is_a_failure_of_the_board(host_with):
    program = answering("get", '"event": "chunk", "data": "x"')
    with Connection(host_with(program)) as session:
        with pytest.raises(DeviceFailure, match=r"makes no sense, a piece of a\.txt"):
            session.get("a.txt", 100)
        session.close()


PAGE = Path(__file__).parents[3] / "docs/remote_bench.md"


@pytest.mark.parametrize(
    ("what", "limit_s"),
    [
        ("each step of the login", CONNECT_S),
        ("`/bin/sh`", LIMITS.shell_s),
        ("its Python", LIMITS.start_s),
        ("a peer without", LIMITS.keeper_s),
        ("an agent without", LIMITS.agent_s),
        ("a lost board", LIMITS.search_s),
        ("the client", SILENCE_S),
    ],
)
def test_every_wait_ends_when_the_page_says(what, limit_s):
    table = PAGE.read_text("utf-8").partition("is given up after |")[2].partition("\n\n")[0]
    [row] = [line for line in table.splitlines() if what in line]
    assert f"| {limit_s:.0f} s " in row
