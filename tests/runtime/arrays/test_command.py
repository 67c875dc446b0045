"""How a command ends, tried on commands of two lines in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.arrays.command import UsageError, complain, noting_signals, run_command
from fastseg_runtime.arrays.metrics import iou_per_class
from fastseg_runtime.bundle.manifest import ManifestError
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.engine import find_engine
from fastseg_runtime.engines.opening import NoBackendError

from tests.doubles.fastseg_run import running

SLEEPER = (
    "import time\nfrom fastseg_runtime.arrays.command import run_command\n"
    "def work(options):\n"
    "    try:\n"
    "        print('ready', flush=True)\n"
    "        time.sleep(60)\n"
    "    finally: print('cleaned up', flush=True)\n"
    "run_command('try', list, work)\n"
)


def end_of(
    raised: BaseException | int | None, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit code and stderr of a command that raises or returns something."""

    def carry_out(options: Any) -> Any:
        if isinstance(raised, BaseException):
            raise raised
        return raised

    with pytest.raises(SystemExit) as ended:
        run_command("try", list, carry_out)
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("code", [None, 0, 1, 3, 8])
def test_the_exit_code_is_what_the_command_returns(
    code: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(code, capsys) == (code or 0, "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ManifestError("no class 7; expected 0 to 3"), 1, "no class 7; expected 0 to 3"),
        (FileNotFoundError(2, "No such file", "a.png"), 1, "[Errno 2] No such file: 'a.png'"),
        (UsageError("two bundles"), 2, "two bundles"),
        (BundleError("damaged\nin its middle"), 1, "damaged in its middle"),
        (NoBackendError("nothing runs here", []), 1, "nothing runs here"),
        (ImportError("needs onnx: pip install 'fastseg-edge[onnx]'"), 1, "fastseg-edge[onnx]'"),
        (MemoryError(), 1, "MemoryError"),
        (ManifestError("\x1b[2J\u202efor a terminal"), 1, r"\u001b[2J\u202efor a terminal"),
        (ManifestError("x" * 5000), 1, "x" * 2000),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, err = end_of(error, capsys)
    assert got == code
    assert err.startswith("try: ") and err.endswith(f"{said}\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    "bug",
    [RuntimeError("x"), ValueError("x"), KeyError("x"), TypeError("x"), AssertionError(),
     ZeroDivisionError(), NotImplementedError(), ModuleNotFoundError("No module 'x'", name="x")],
    ids=lambda bug: type(bug).__name__,
)  # fmt: skip
def test_a_mistake_of_ours_is_left_to_python_which_shows_its_trace(bug: Exception) -> None:
    def carry_out(options: Any) -> int:
        raise bug

    with pytest.raises(type(bug)):
        run_command("try", list, carry_out)


def test_a_value_error_is_a_line_where_we_raise_it_and_a_trace_where_python_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run_command("try", list, lambda _: find_engine("warp"))
    assert capsys.readouterr().err.startswith("try: no backend 'warp'; choose one of coreml, ")
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        run_command("try", list, lambda _: iou_per_class(np.zeros((2, 3))))


def test_a_command_may_call_more_exceptions_its_users_mistakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def carry_out(options: Any) -> int:
        raise RuntimeError("the GPU is full")

    with pytest.raises(SystemExit):
        run_command("try", list, carry_out, mistakes=(RuntimeError,))
    assert capsys.readouterr().err == "try: the GPU is full\n"


def test_an_error_that_cannot_be_printed_still_has_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", full)
    code = complain("try", UsageError("two bundles"))
    with suppress(OSError):  # what is left of the line
        full.close()
    assert code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_in_order_with_its_own_code(number: signal.Signals) -> None:
    with running([sys.executable, "-c", SLEEPER], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "cleaned up\n", "try: stopped\n")


def test_under_nohup_a_hangup_ends_nothing() -> None:
    with running(["nohup", sys.executable, "-c", SLEEPER], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


# As a launcher does: a worker has a group of its own, and is ended by what started it.
LAUNCHER = """
trap 'kill $two; exit' TERM
sleep 60 & one=$!
setsid sleep 60 & two=$!
echo $one $two
while :; do sleep 0.1; done
"""


def test_nothing_that_the_child_of_a_test_started_outlives_it() -> None:
    with running(["sh", "-c", LAUNCHER], stdout=-1) as process:
        assert process.stdout is not None
        workers = process.stdout.readline().split()
        assert len(workers) == 2 and all(map(lives, workers))
    deadline = time.monotonic() + 10
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(lives, workers))


def lives(pid: str) -> bool:
    """Return whether a process is there and no zombie that waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(
        "from fastseg_runtime.arrays.command import run_command\n"
        "run_command('try', list, lambda options: print('line\\n' * 100_000))\n"
    )
    done = subprocess.run(
        f"{sys.executable} c.py | head -1", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("line\n", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_without_stdout_or_stderr_the_work_is_done_all_the_same(
    closed: str, tmp_path: Path
) -> None:
    (tmp_path / "c.py").write_text(
        "import sys\n"
        "from fastseg_runtime.arrays.command import complain, run_command\n"
        "def work(options):\n"
        "    print('\u56f3')\n"
        "    print('said', file=sys.stderr)\n"
        "    open('done', 'w').close()\n"
        "    return complain('try', 'one failed')\n"
        "run_command('try', list, work)\n",
        "utf-8",
    )
    command = f"{sys.executable} c.py {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_name_that_the_encoding_of_stdout_lacks_ends_no_run(
    encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "c.py").write_text(
        "from fastseg_runtime.arrays.command import run_command\n"
        "from fastseg_runtime.cli.examine import print_json\n"
        "def work(options):\n"
        "    print('\u56f3.png \\udc80')\n"
        "    print_json({'input': '\u56f3\\U0001f600\u00e9'})\n"
        "run_command('try', list, work)\n",
        "utf-8",
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "c.py"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    line, _, document = done.stdout.decode(encoding).partition("\n")
    assert line.endswith(".png \\udc80")
    assert json.loads(document) == {"input": "\u56f3\U0001f600\u00e9"}


def test_the_first_signal_is_noted_and_the_second_obeyed() -> None:
    with pytest.raises(KeyboardInterrupt), noting_signals() as noted:
        assert noted == []
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [130]
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with noting_signals() as noted:
        os.kill(os.getpid(), signal.SIGTERM)
    assert noted == [143] and signal.getsignal(signal.SIGTERM) is before
