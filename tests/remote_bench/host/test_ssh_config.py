from pathlib import Path

import pytest
from remote_bench.host import ssh_config
from remote_bench.host.errors import UsageError
from remote_bench.host.ssh_config import parse_settings, read_settings

OUTPUT = """host board
user jetson
hostname 10.0.0.7
port 2222
identitiesonly yes
identityfile ~/.ssh/id_board
identityfile /keys/other
proxyjump me@gate:22,second
userknownhostsfile /home/me/.ssh/known_hosts /home/me/.ssh/known_hosts2
globalknownhostsfile none
hostkeyalias the-board
connecttimeout 7
"""


def test_what_ssh_says_is_read():
    settings = parse_settings(OUTPUT)
    assert (settings.hostname, settings.port, settings.user) == ("10.0.0.7", 2222, "jetson")
    assert settings.identity_files == (Path.home() / ".ssh/id_board", Path("/keys/other"))
    assert settings.identities_only
    assert settings.jumps == ("me@gate:22", "second")
    assert len(settings.user_known_hosts) == 2 and settings.system_known_hosts == ()
    assert (settings.key_name, settings.connect_timeout_s) == ("the-board", 7.0)


def test_proxyjump_none_is_no_jump():
    assert parse_settings("hostname h\nproxyjump none\n").jumps == ()


def test_a_port_is_part_of_the_name_of_a_key():
    assert parse_settings("hostname h\nport 22\n").key_name == "h"
    assert parse_settings("hostname h\nport 2222\n").key_name == "[h]:2222"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("board", ("board", 22, None)),
        ("me@board:2222", ("board", 2222, "me")),
        ("ssh://me@board:2222", ("board", 2222, "me")),
        ("[fe80::1%eth0]:22", ("fe80::1%eth0", 22, None)),
    ],
)
def test_hosts_are_read_without_an_ssh_too(monkeypatch, text, expected):
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: None)
    settings = read_settings(text)
    assert (settings.hostname, settings.port) == expected[:2]
    assert expected[2] in (None, settings.user)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "a;b@c d", "me@", "h:port"])
def test_what_is_no_host_is_refused_before_any_command_sees_it(text):
    with pytest.raises(UsageError, match="expected a host"):
        read_settings(text)


def test_a_config_that_ssh_does_not_accept_is_quoted(monkeypatch, tmp_path):
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\necho 'line 3: bad option' >&2\nexit 255\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: str(fake))
    with pytest.raises(UsageError, match="line 3: bad option"):
        read_settings("board")
