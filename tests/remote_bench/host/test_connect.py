import os
import tempfile

import pytest
from remote_bench.host.connect import Connector
from remote_bench.host.errors import Unreachable, UsageError
from remote_bench.host.local import LocalHost, cache_folder

from tests.boards.measuring import Watcher
from tests.boards.password_server import PasswordServer


@pytest.fixture
def server():
    server = PasswordServer("s3cret pass")
    yield server
    server.close()


@pytest.fixture
def alias(server, ssh_client, tmp_path):
    name = f"[127.0.0.1]:{server.port}"
    (tmp_path / "known_hosts").write_text(
        f"{name} {server.key.get_name()} {server.key.get_base64()}\n"
    )
    with ssh_client.config.open("a") as config:
        config.write(
            f"Host board\n HostName 127.0.0.1\n Port {server.port}\n IdentityFile /absent\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {tmp_path}/known_hosts\n"
        )
    return "board"


def descriptor_with(content: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return reading


def test_a_password_comes_from_a_file_descriptor(server, alias):
    connector = Connector(None, descriptor_with(b"s3cret pass\nrest"))
    connector.connect(alias, Watcher()).close()
    assert server.tried == ["s3cret pass"]


def test_a_password_that_is_no_utf_8_is_refused_and_not_shown():
    with pytest.raises(UsageError, match=r"--password-fd \d+: expected UTF-8") as refused:
        Connector(None, descriptor_with(b"gr\xfc\xdf\n"))
    assert "xfc" not in str(refused.value) and refused.value.__cause__ is None


def test_ctrl_d_at_a_prompt_is_no_answer(monkeypatch):
    def end(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", end)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert Connector(None, None).ask("Password: ") is None


def test_a_wrong_password_is_refused_and_not_shown(server, alias):
    with pytest.raises(Unreachable, match="password: Authentication failed") as refused:
        Connector(None, descriptor_with(b"wr0ng\n")).connect(alias, Watcher())
    assert "wr0ng" not in str(refused.value)


def test_without_a_terminal_nobody_is_asked(server, alias):
    with pytest.raises(Unreachable, match="--password-fd"):
        Connector(None, None).connect(alias, Watcher())
    assert server.tried == []


def test_a_descriptor_that_is_not_open_is_a_usage_error():
    with pytest.raises(UsageError, match="--password-fd 999"):
        Connector(None, 999)


def test_localhost_needs_no_ssh():
    assert isinstance(Connector(None, None).connect("localhost", Watcher()), LocalHost)


def test_a_cache_that_is_named_by_halves_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    assert cache_folder("wheels") == tmp_path / "tmp/cache/remote_bench/wheels"
