"""fastseg-web as its user meets it."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from fastseg_web import cli, library

from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import argmax_onnx, full_plan
from tests.fastseg_web.conftest import FAKE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in a folder of its own, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastseg-web", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_nothing_is_fetched_unless_it_is_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "urlopen", lambda *_, **__: pytest.fail("it was"))
    full_plan().write(Path("tiny.fastseg"))
    code, out, err = run("tiny.fastseg")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "fastseg-web --fetch (licence MIT, 33 MB to fetch" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "no *.fastseg in this folder; name a bundle, or make one: fastseg-export"),
        (["no.fastseg"], 1, "no bundle no.fastseg; make one with fastseg-export"),
        (["net.onnx"], 1, "net.onnx is not a fastseg bundle"),
        (["cut.fastseg"], 1, "is not a whole bundle"),
        (["tiny.fastseg", "--target", "cpu-int8"], 1, "no target 'cpu-int8'; it has cpu-fp32"),
        (["tiny.fastseg", "--cert", "net.onnx"], 2, "--cert and --key belong together"),
        (["tiny.fastseg", "--cert", "net.onnx", "--key", "net.onnx"], 2, "not a pair in PEM"),
        (["tiny.fastseg", "--cert", "no", "--key", "no"], 2, "not a pair in PEM"),
        (["tiny.fastseg", "--port", "65536"], 2, "65535"),
        (["tiny.fastseg", "--host", "nowhere.invalid"], 2, "cannot listen on nowhere.invalid"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.setattr(library, "read", lambda: FAKE)
    if arguments:
        full_plan().write(Path("tiny.fastseg"))
        Path("net.onnx").write_bytes(argmax_onnx())
        Path("cut.fastseg").write_bytes(Path("tiny.fastseg").read_bytes()[:-9])
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    last = err.splitlines()[-1]
    assert last.startswith("fastseg-web: ") and told in last


def test_fetching_alone_prints_where_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "fetch", lambda tell: tell("fetching"))
    kept = str(library.folder())
    assert run("--fetch") == (0, f"{kept}\n", "fetching\n")
    code, out, _ = run("--fetch", "--json")
    assert code == 0 and json.loads(out) == {"library": kept}


def test_a_port_in_use_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "read", lambda: FAKE)
    full_plan().write(Path("tiny.fastseg"))
    with closing(create_server(("127.0.0.1", 0))) as taken:
        code, out, err = run("tiny.fastseg", "--port", str(taken.getsockname()[1]))
    assert (code, out) == (2, "") and "in use; choose others with --host and --port" in err


def test_an_address_without_a_camera_is_told_with_what_gives_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "read", lambda: FAKE)
    monkeypatch.setattr(cli.PageServer, "serve", stop)
    full_plan().write(Path("tiny.fastseg"))
    for host, told in (("0.0.0.0", True), ("127.0.0.1", False)):
        code, out, err = run("tiny.fastseg", "--host", host, "--port", "0")
        assert code == 130 and out.startswith("http://")
        assert ("give --cert and --key, or forward the port" in err) is told


def test_it_serves_the_newest_bundle_until_it_is_stopped(tmp_path: Path) -> None:
    full_plan().write(tmp_path / "tiny.fastseg")
    code = f"from fastseg_web import cli, library\nlibrary.read = lambda: {FAKE!r}\ncli.main()"
    command = [sys.executable, "-c", code, "--port", "0", "--json"]
    pipe = subprocess.PIPE
    with running(command, cwd=tmp_path, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None and child.stderr is not None
        told = json.loads(child.stdout.readline())
        assert told["bundle"].endswith("tiny.fastseg") and told["target"] == "cpu-fp32"
        with urllib.request.urlopen(f"{told['url']}model.onnx", timeout=20) as answer:
            assert answer.read() == argmax_onnx()
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 143
        assert "weights: " in child.stderr.read()
