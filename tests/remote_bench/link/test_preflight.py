import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from remote_bench.host.errors import DeviceFailure, MissingRequirement
from remote_bench.host.local import LocalHost
from remote_bench.link import payload
from remote_bench.link.connection import Connection

SHELLS = ["sh", "bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh"]


def python_in(folder: Path, name: str, target: str = sys.executable) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(target)


def fake_python(folder: Path, name: str, minor: int) -> None:
    """A python that answers as an old one does, and can do nothing else."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(
        f'#!/bin/sh\ncase "$*" in *"(3, 8)"*|*"(3, 6)"*) [ {minor} -ge 8 ];; '
        f"*) echo Python 3.{minor}.0; exit 1;; esac\n"
    )
    file.chmod(0o755)


def scripted_python(folder: Path, script: str) -> None:
    """A python that is new enough when asked, and runs a shell script in our program's place."""
    folder.mkdir()
    (folder / "python3").write_text(f"#!/bin/sh\n[ $# = 2 ] && exit\n{script}\n")
    (folder / "python3").chmod(0o755)


@pytest.fixture
def tools(tmp_path):
    """A folder with what the preflight needs besides a Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "uname", "env"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def session_with(tmp_path: Path, *folders: Path) -> Connection:
    host = LocalHost({"TMPDIR": str(tmp_path), "PATH": os.pathsep.join(map(str, folders))})
    return Connection(host)


def test_the_command_line_has_nothing_that_a_login_shell_could_take_for_its_own():
    inner = payload.COMMAND.removeprefix("sh -c '").removesuffix("'")
    assert not set("'!\\\n") & set(inner)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_passes_the_command_on(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", payload.COMMAND],
        input=payload.program({"token": "t0k", "base": str(tmp_path)}),
        capture_output=True,
        env=environment,
        timeout=60,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(b"@t0k "))
    assert json.loads(line[5:])["event"] == "hello"
    assert not list(tmp_path.glob("remote_bench*"))


def test_a_board_without_python_is_told_what_to_install(tmp_path, tools):
    with pytest.raises(MissingRequirement, match=r"no Python 3.6 or newer .*apt-get install"):
        session_with(tmp_path, tools)


def test_a_board_whose_python_is_too_old_is_told_its_version(tmp_path, tools):
    fake_python(tmp_path / "old", "python3", 5)
    with pytest.raises(MissingRequirement, match=r"python3: Python 3.5.0"):
        session_with(tmp_path, tmp_path / "old", tools)


def test_a_newer_python_under_another_name_is_found_beside_an_old_one(tmp_path, tools):
    fake_python(tmp_path / "bin", "python3", 6)
    python_in(tmp_path / "bin", "python3.11")
    with session_with(tmp_path, tmp_path / "bin", tools) as session:
        assert session.hello["python"].startswith("3.11.")


@pytest.mark.parametrize("minor", [6, 8, 9, 10, 12, 13])
def test_the_keeper_works_on_other_pythons(tmp_path, tools, minor):
    found = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
    python = str(found[0]) if found else shutil.which(f"python3.{minor}")
    if python is None:
        pytest.skip(f"no Python 3.{minor} here")
    python_in(tmp_path / "bin", "python3", python)
    with session_with(tmp_path, tmp_path / "bin", tools) as session:
        assert session.hello["python"].startswith(f"3.{minor}.")
        session.request("lock")
        assert session.finish()["before"] > 0
    assert not list(tmp_path.glob("remote_bench*"))


@pytest.mark.parametrize("name", ["with space", 'it\'s "quoted"', "$(touch pwned)", "grün", "-rf"])
def test_a_base_folder_of_any_name_works_and_is_left_empty(tmp_path, name):
    base = tmp_path / name
    base.mkdir()
    with Connection(LocalHost({"TMPDIR": str(tmp_path)}), base=str(base)):
        assert [path.name for path in base.iterdir()] == [f"remote_bench-{os.geteuid()}"]
    assert list(base.iterdir()) == []
    assert not (tmp_path / "pwned").exists()


def test_a_base_folder_that_is_a_link_is_followed_once_and_the_target_used(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Connection(LocalHost({"TMPDIR": str(tmp_path)}), base=str(tmp_path / "link")):
        assert list((tmp_path / "real").iterdir())
    assert list((tmp_path / "real").iterdir()) == []


def test_a_work_folder_that_somebody_else_made_into_a_link_is_not_used(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").write_text("mine")
    (tmp_path / f"remote_bench-{os.geteuid()}").symlink_to(elsewhere)
    with pytest.raises(MissingRequirement, match="is somebody else's, or a link"):
        Connection(LocalHost({"TMPDIR": str(tmp_path)}), base=str(tmp_path))
    assert (elsewhere / "precious").read_text() == "mine"


def test_a_python_that_ends_before_our_program_begins_is_quoted(tmp_path, tools):
    scripted_python(tmp_path / "bin", "echo go away; exit 7")
    with pytest.raises(DeviceFailure, match=r"our program .* ended with status 7: go away"):
        session_with(tmp_path, tmp_path / "bin", tools)


def test_the_code_that_travels_takes_a_few_seconds_on_a_slow_link():
    assert len(payload.code_zip()) + len(payload.program({})) < 4 * 64_000
