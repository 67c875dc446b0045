"""A toolchain that is asked line by line: whatever its script does, one line says it."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fastseg_exporters.gate.referees.referee import REFEREES, Referee
from fastseg_exporters.gate.referees.toolchain import Toolchain, ToolchainError

SCRIPT = """
import json, subprocess, sys, time
for line in sys.stdin:
    order = json.loads(line)
    if "frame" in order:
        with open(order["frame"], "rb") as file, open(order["output"], "wb") as out:
            out.write(file.read())
    if order.get("say"):
        print(order["say"], file=sys.stderr, flush=True)
    if "half" in order.get("do", ""):
        print("{}", end="", flush=True)
    if "crash" in order.get("do", ""):
        sys.exit(1)
    if order.get("do") == "start":
        child = subprocess.Popen(["sleep", "60"])
        order["answer"] = {"pid": child.pid}
    time.sleep(order.get("sleep", 0))
    print(json.dumps(order.get("answer", {})), flush=True)
"""


@pytest.fixture
def referee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Referee:
    """Return one whose environment is this Python."""
    script = tmp_path / "judge_double.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(Referee, "script_file", script)
    monkeypatch.setattr(Referee, "python", Path(sys.executable))
    monkeypatch.setattr(Referee, "is_installed", True)
    return Referee("double", title="Its toolchain", timeout_s=5)


def test_it_answers_orders_and_runs_frames_until_it_is_closed(referee: Referee) -> None:
    toolchain = Toolchain(referee)
    assert toolchain.ask(answer={"version": "2"}) == {"version": "2"}
    for seed in range(2):
        image = np.random.default_rng(seed).integers(0, 256, (1, 4, 6, 3), np.uint8)
        assert np.array_equal(toolchain.run(image), image)
    toolchain.close()
    toolchain.close()


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"answer": {"refused": "no such\nop"}}, r"^Its toolchain refuses: no such op$"),
        ({"do": "crash", "say": "bad\x1b[31m graph"}, r"^Its toolchain ended: .*graph$"),
        ({"do": "crash"}, r"^Its toolchain ended: it said nothing$"),
        ({"do": "half, crash", "say": "no memory"}, r"^Its toolchain ended: no memory$"),
        ({"answer": "words"}, r"^Its toolchain gave no answer: "),
        ({"answer": 3}, r"^Its toolchain gave no answer: "),
        ({"answer": {"refused": "x" * 9000}}, r"^Its toolchain refuses: x{500}$"),
    ],
)
def test_what_goes_wrong_in_it_is_one_line(
    referee: Referee, order: dict[str, object], says: str
) -> None:
    toolchain = Toolchain(referee)
    with pytest.raises(ToolchainError, match=says) as error:
        toolchain.ask(**order)
    assert "\x1b" not in str(error.value)
    toolchain.close()


def test_after_its_end_it_says_so_again(referee: Referee) -> None:
    toolchain = Toolchain(referee)
    for _ in range(2):
        with pytest.raises(ToolchainError, match="ended"):
            toolchain.ask(do="crash")
    toolchain.close()


@pytest.mark.parametrize("order", [{}, {"do": "half"}])
def test_one_that_hangs_is_given_up(referee: Referee, order: dict[str, str]) -> None:
    toolchain = Toolchain(referee)
    toolchain.ask()  # it is up: on a busy machine its start takes longer than what follows
    toolchain._referee = dataclasses.replace(referee, timeout_s=0.3)
    start = time.monotonic()
    with pytest.raises(ToolchainError, match=r"^Its toolchain took more than 0 s$"):
        toolchain.ask(**order, sleep=60)
    with pytest.raises(ToolchainError, match=r"^Its toolchain ended"):
        toolchain.ask()  # rather than take a late answer to the order before
    toolchain.close()
    assert time.monotonic() - start < 10  # it waited for nothing


def test_nothing_that_it_started_outlives_it(referee: Referee) -> None:
    toolchain = Toolchain(referee)
    pid, start = toolchain.ask(do="start")["pid"], time.monotonic()
    toolchain.close()
    assert time.monotonic() - start < 10  # though that holds its output open
    while runs(pid) and time.monotonic() - start < 10:
        time.sleep(0.01)
    assert not runs(pid)


def test_of_a_group_that_is_killed_as_a_whole_it_is_a_part_and_ends_alone(
    referee: Referee,
) -> None:
    toolchain = Toolchain(referee, own_group=False)
    pid = toolchain.ask(do="start")["pid"]
    try:
        assert os.getpgid(pid) == os.getpgrp()
        toolchain.close()
        assert runs(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", REFEREES)
def test_one_that_is_not_here_says_what_installs_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    with pytest.raises(ToolchainError, match=rf"is not installed here: make referees .*={name}$"):
        Toolchain(REFEREES[name])
