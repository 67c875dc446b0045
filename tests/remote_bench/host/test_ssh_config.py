import shutil
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


def test_jumps_have_their_tokens_replaced_and_a_zone_stays():
    settings = parse_settings(f"{HOST}proxyjump %r@gw-%n:2200,me@fe80::1%eth0\n")
    assert settings.jumps == ("jetson@gw-board:2200", "me@fe80::1%eth0")


@pytest.mark.parametrize("key", ["bindaddress", "bindinterface"])
def test_where_it_should_connect_from_is_for_ssh_alone(key):
    assert parse_settings(f"{HOST}{key} 10.1.2.3\n").for_ssh_alone == (key,)
    assert parse_settings(HOST).for_ssh_alone == ()


def test_known_hosts_in_a_folder_with_a_space_are_found_though_ssh_prints_no_quotes(tmp_path):
    file = tmp_path / "my own  hosts" / "known hosts"
    file.parent.mkdir(parents=True)
    (tmp_path / "my").mkdir()
    with pytest.raises(UsageError, match="path with a space that is not there yet; .*--via-ssh"):
        parse_settings(f"{HOST}userknownhostsfile {file}\n")
    listed = f"{HOST}userknownhostsfile {tmp_path}/a {file} /dev/null {tmp_path}/b\n"
    file.touch()
    expected = (tmp_path / "a", file, Path("/dev/null"), tmp_path / "b")
    assert parse_settings(listed).user_known_hosts == expected


def test_a_second_file_that_is_not_there_yet_is_no_matter(tmp_path):
    (tmp_path / "known_hosts").touch()
    listed = f"{HOST}userknownhostsfile {tmp_path}/known_hosts known_hosts2\n"
    assert parse_settings(listed).user_known_hosts[0] == tmp_path / "known_hosts"


@pytest.mark.parametrize("name", ["kh%lab", "fe80::1%eth0", "100%", "%Z${NO_SUCH_VARIABLE}"])
def test_a_percent_sign_that_is_a_name_s_own_stays(tmp_path, name):
    for _ in range(2):
        [found] = parse_settings(f"{HOST}userknownhostsfile {tmp_path}/{name}\n").user_known_hosts
        if name != "kh%lab" or found.exists():  # %l is a token where no such file tells otherwise
            assert found == tmp_path / name
        (tmp_path / name).touch()


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
        ("::1", ("::1", 22, None)),
        ("me@::1", ("::1", 22, "me")),
        ("me@[::1]", ("::1", 22, "me")),
        ("me@[::1]:2299", ("::1", 2299, "me")),
        ("fe80::1%usb0", ("fe80::1%usb0", 22, None)),
        ("me@fe80::1ff:FE23:4567:890a%eth0.5", ("fe80::1ff:FE23:4567:890a%eth0.5", 22, "me")),
        ("ssh://me@[fe80::1%usb0]:2222/", ("fe80::1%usb0", 2222, "me")),
        ("::ffff:10.0.0.7", ("::ffff:10.0.0.7", 22, None)),
        ("gerät.local", ("gerät.local", 22, None)),
        ("me@corp.example@gate", ("gate", 22, "me@corp.example")),
    ],
)
@pytest.mark.parametrize("ssh", [None, shutil.which("ssh")])
def test_hosts_are_read_with_an_ssh_and_without(monkeypatch, tmp_path, ssh, text, expected):
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: ssh)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = read_settings(text)
    assert (settings.hostname.lower(), settings.port) == (expected[0].lower(), expected[1])
    assert expected[2] in (None, settings.user)


def test_an_address_whose_port_lacks_its_brackets_is_told_so():
    with pytest.raises(UsageError, match=r"or \[fe80::1%usb0\]:22 for an IPv6 address"):
        read_settings("fe80::1%usb0:22")


CONFIG = """
Host board
  HostName 10.0.0.7
  Port 2222
  User jetson
  ProxyCommand nc %h %p
  IdentityFile ~/.ssh/%r-key
"""


@pytest.mark.parametrize("ssh", [None, shutil.which("ssh")])
def test_a_config_is_read_with_an_ssh_and_without(monkeypatch, tmp_path, ssh):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(CONFIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = f"{tmp_path}/ssh" if ssh else None  # ssh itself asks the password file, not HOME
    if ssh:
        Path(found).write_text(f'#!/bin/sh\nexec {ssh} -F {tmp_path}/.ssh/config "$@"\n')
        Path(found).chmod(0o755)
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: found)
    settings = read_settings("board:2200")
    assert (settings.hostname, settings.port, settings.user) == ("10.0.0.7", 2200, "jetson")
    assert settings.identity_files == (tmp_path / ".ssh/jetson-key",)
    assert settings.proxy_command == "nc 10.0.0.7 2200"


@pytest.mark.parametrize("config", ["Include other", "Host x\n  include a/*", "Match exec\nPort 1"])
def test_what_paramiko_s_reader_does_not_know_is_said(monkeypatch, tmp_path, config):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"\.ssh/config: .*; install OpenSSH's client"):
        read_settings("board")


HOST = "host board\nhostname 10.0.0.7\nport 2222\nuser jetson\n"


def test_tokens_that_ssh_leaves_to_whoever_connects_are_replaced(monkeypatch):
    monkeypatch.setenv("KEYS", "/keys")
    settings = parse_settings(
        f"{HOST}identityfile %d/%n-%h-%p-%r\nidentityfile ${{KEYS}}/100%%\n"
        "proxycommand nc -x $PROXY:1080 '%h' %p 2>/dev/null\n"
    )
    assert settings.identity_files == (
        Path.home() / "board-10.0.0.7-2222-jetson",
        Path("/keys/100%"),
    )
    assert settings.proxy_command == "nc -x $PROXY:1080 '10.0.0.7' 2222 2>/dev/null"


def test_tokens_of_known_hosts_are_replaced_as_ssh_does():
    found = parse_settings(f"{HOST}userknownhostsfile %d/%n.known ~/%%h\n").user_known_hosts
    assert found == (Path.home() / "board.known", Path.home() / "%h")


@pytest.mark.parametrize("file", ["~/%C", "${NO_SUCH_VARIABLE}/x", "~/%T/x"])
def test_a_token_without_a_value_is_an_error_with_a_way_out(file):
    with pytest.raises(UsageError, match=r"has no value here; .*--via-ssh"):
        parse_settings(f"{HOST}identityfile {file}\n")


@pytest.mark.parametrize("user", ["a$(id)", "a`b", "a;b", "a b", "a|b", "d\\u", "a'b"])
def test_no_name_means_anything_to_the_shell_of_a_proxy_command(user):
    with pytest.raises(UsageError, match=r"ProxyCommand has %r"):
        parse_settings(f"hostname h\nuser {user}\nproxycommand nc '%r' %h %p\n")


def test_a_proxy_command_that_hands_over_a_socket_needs_ssh_itself():
    with pytest.raises(UsageError, match="ProxyUseFdpass .*--via-ssh"):
        parse_settings(f"{HOST}proxycommand nc -F %h %p\nproxyusefdpass yes")


@pytest.mark.parametrize(
    ("said", "expected"),
    [("true", "yes"), ("false", "no"), ("off", "no"), ("ask", "ask"), ("accept-new", "accept-new")],
)
def test_strict_host_key_checking_is_read_in_ssh_s_words(said, expected):
    assert parse_settings(f"{HOST}stricthostkeychecking {said}").strict_host_keys == expected
    assert parse_settings(HOST).strict_host_keys == "ask"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "/run/agent"),
        ("identityagent SSH_AUTH_SOCK", "/run/agent"),
        ("identityagent none", ""),
        ("identityagent $OTHER", "/run/other"),
        ("identityagent ${OTHER}", "/run/other"),
        ("identityagent $UNSET_VARIABLE", ""),
        ("identityagent /run/1password agent.sock", "/run/1password agent.sock"),
    ],
)
def test_the_agent_is_the_one_that_the_configuration_names(monkeypatch, said, expected):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER", "/run/other")
    assert parse_settings(HOST + said).agent == expected


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=x", "a b", "a;b@c d", "me@", "h:port", "[::1", "::1]", "a::b::%", ":"],
)
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
