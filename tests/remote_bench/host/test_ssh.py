import base64
import hashlib
import hmac
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from remote_bench.host.errors import HostKeyRefused, Unreachable, UsageError
from remote_bench.host.ssh import SshHost
from remote_bench.link.connection import Connection

from tests.boards.measuring import run
from tests.boards.sshd import make_key

pytestmark = pytest.mark.slow  # needs openssh-server


def nobody(prompt: str) -> None:
    return None


def connect(name: str, **options) -> SshHost:
    return SshHost(name, options.pop("ask", nobody), **options)


def public_key(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def fingerprint(path: Path) -> str:
    digest = hashlib.sha256(base64.b64decode(public_key(path).split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@pytest.fixture
def other_key(tmp_path):
    make_key(tmp_path / "other_key")
    return tmp_path / "other_key"


def test_a_command_runs_on_the_board_and_its_streams_and_status_come_back(sshd, ssh_client):
    host = connect(ssh_client.add("board", sshd))
    stream = host.start("cat; echo oops >&2; exit 7")
    stream.send(b"hello \xff")
    stream._channel.shutdown_write()
    assert stream.receive() == b"hello \xff"
    assert (stream.receive(), stream.errors(), stream.status(10)) == (b"", "oops\n", 7)
    assert host.address == "127.0.0.1"
    host.close()


def test_megabytes_on_stderr_do_not_block_stdout(sshd, ssh_client):
    host = connect(ssh_client.add("board", sshd))
    stream = host.start("head -c 6000000 /dev/zero >&2; echo done")
    assert stream.receive() == b"done\n"
    host.close()


def test_an_unknown_host_key_stops_and_the_message_has_the_command_that_accepts_it(
    sshd, ssh_client
):
    sshd.known_hosts.write_text("")
    alias = ssh_client.add("board", sshd)
    with pytest.raises(HostKeyRefused) as refused:
        connect(alias)
    wanted = fingerprint(sshd.host_key)
    assert f"remote_bench board --accept-host-key {wanted}" in str(refused.value)
    assert sshd.known_hosts.read_text() == ""
    with pytest.raises(HostKeyRefused, match="not the SHA256:abc that you accept"):
        connect(alias, accept_key="SHA256:abc")
    host = connect(alias, accept_key=wanted)
    assert sshd.known_hosts.read_text() == f"[127.0.0.1]:{sshd.port} {public_key(sshd.host_key)}\n"
    assert "added SHA256:" in host.notes[0]
    host.close()
    connect(alias).close()


def test_what_the_configuration_weakens_is_in_the_report(sshd, ssh_client, bundle):
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    host = connect(ssh_client.add("board", sshd, **options))
    reasons = [reason for reason in run(host, bundle=bundle).reasons if "unseen" in reason.message]
    assert [reason.code for reason in reasons] == ["host_key_unseen"]
    host.close()


def test_a_changed_host_key_stops_even_where_it_was_accepted_by_its_fingerprint(
    sshd, ssh_client, other_key
):
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public_key(other_key)}\n")
    alias = ssh_client.add("board", sshd)
    with pytest.raises(HostKeyRefused, match=r"HAS CHANGED: .*known_hosts:1 has SHA256"):
        connect(alias, accept_key=fingerprint(sshd.host_key))


def test_a_server_that_shows_a_key_of_another_type_than_the_known_one_has_changed(
    sshd, ssh_client, tmp_path
):
    make_key(tmp_path / "rsa", "rsa")
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public_key(tmp_path / 'rsa')}\n")
    with pytest.raises(HostKeyRefused, match="HAS CHANGED"):
        connect(ssh_client.add("board", sshd), accept_key=fingerprint(sshd.host_key))


def test_a_revoked_host_key_stops_even_where_another_line_approves_it(sshd, ssh_client):
    sshd.known_hosts.write_text(
        f"{sshd.known_hosts.read_text()}@revoked * {public_key(sshd.host_key)}\n"
    )
    with pytest.raises(HostKeyRefused, match=r"revoked in .*known_hosts:2"):
        connect(ssh_client.add("board", sshd))


def test_odd_lines_of_known_hosts_do_not_hide_the_good_one(sshd, ssh_client, other_key):
    good = sshd.known_hosts.read_bytes()
    odd = (
        f"@revoked * {public_key(other_key)}\n"
        f"@cert-authority *.example.org {public_key(other_key)}\n"
        "what is this\n# a comment\n\nhost ssh-ed25519 AAAA!!!!\n"
    ).encode()
    latin = "elsewhere ssh-ed25519 AAAA Gerät\n".encode("latin-1")
    sshd.known_hosts.write_bytes(odd + latin + good)
    connect(ssh_client.add("board", sshd)).close()


@pytest.mark.parametrize("pattern", ["[127.*]:*", "!other,[127.0.0.?]:{port}", "hashed"])
def test_wildcards_and_hashed_names_of_known_hosts_match(sshd, ssh_client, pattern):
    name = pattern.format(port=sshd.port)
    if pattern == "hashed":
        salt = os.urandom(20)
        plain = f"[127.0.0.1]:{sshd.port}".encode()
        digest = hmac.new(salt, plain, hashlib.sha1).digest()
        name = "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))
    sshd.known_hosts.write_text(f"{name} {public_key(sshd.host_key)}\n")
    connect(ssh_client.add("board", sshd)).close()


def test_the_key_may_be_known_by_an_alias(sshd, ssh_client):
    sshd.known_hosts.write_text(f"my-board {public_key(sshd.host_key)}\n")
    connect(ssh_client.add("board", sshd, HostKeyAlias="my-board")).close()


def test_a_certificate_authority_needs_the_users_own_ssh_and_is_said(sshd, ssh_client, other_key):
    sshd.known_hosts.write_text(f"@cert-authority * {public_key(other_key)}\n")
    with pytest.raises(HostKeyRefused, match=r"unknown host key .*add --via-ssh"):
        connect(ssh_client.add("board", sshd))


@pytest.mark.parametrize("strict", ["accept-new", "no", "off"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_new_host_key_is_accepted_where_the_configuration_says_so_and_that_is_noted(
    sshd, ssh_client, tmp_path, strict, kept
):
    known = tmp_path / "known" if kept else "/dev/null"
    options = {"StrictHostKeyChecking": strict, "UserKnownHostsFile": known}
    alias = ssh_client.add("board", sshd, **options)
    host = connect(alias)
    said = strict.replace("off", "no")
    assert fingerprint(sshd.host_key) in host.weakened[0] and f" {said} in" in host.weakened[0]
    host.close()
    again = connect(alias)
    assert bool(again.weakened) != kept  # a key that was kept is checked from then on
    again.close()


@pytest.mark.parametrize("strict", ["yes", "ask"])
def test_a_new_host_key_is_refused_where_the_configuration_says_so(sshd, ssh_client, strict):
    sshd.known_hosts.write_text("")
    with pytest.raises(HostKeyRefused, match="unknown host key"):
        connect(ssh_client.add("board", sshd, StrictHostKeyChecking=strict))


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new", "no", "off"])
def test_a_changed_host_key_stops_whatever_the_configuration_says(
    sshd, ssh_client, other_key, strict
):
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public_key(other_key)}\n")
    with pytest.raises(HostKeyRefused, match="HAS CHANGED"):
        connect(ssh_client.add("board", sshd, StrictHostKeyChecking=strict))


def test_a_host_key_that_changes_while_nobody_checks_stops_the_next_connection(
    start_sshd, ssh_client
):
    first, second = start_sshd(), start_sshd()
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    host = connect(ssh_client.add("board", first, **options))
    host.close()
    ssh_client.config.write_text("")
    ssh_client.add("board", second, IdentityFile=first.client_key, **options)
    with pytest.raises(HostKeyRefused, match="HAS CHANGED: this run has"):
        host.start("true")


@pytest.mark.parametrize("reply", ["yes", "{}", "no", None])
def test_whoever_sits_there_is_asked_about_an_unknown_host_key(sshd, ssh_client, reply):
    sshd.known_hosts.write_text("")
    alias, mine = ssh_client.add("board", sshd), fingerprint(sshd.host_key)
    asked = []

    def answer(question: str) -> str | None:
        asked.append(question)
        return reply and reply.format(mine)

    if reply in ("yes", "{}"):
        connect(alias, answer=answer).close()
        assert public_key(sshd.host_key) in sshd.known_hosts.read_text()
    else:
        with pytest.raises(HostKeyRefused, match="unknown host key"):
            connect(alias, answer=answer)
        assert sshd.known_hosts.read_text() == ""
    assert mine in asked[0]


def test_a_key_that_all_users_of_this_machine_know_is_known(sshd, ssh_client, tmp_path):
    (tmp_path / "global").write_text(sshd.known_hosts.read_text())
    sshd.known_hosts.write_text("")
    options = {"UserKnownHostsFile": "none", "GlobalKnownHostsFile": tmp_path / "global"}
    ssh_client.config.write_text("")
    connect(ssh_client.add("board", sshd, **options)).close()


def test_the_family_of_addresses_is_the_one_that_the_configuration_names(sshd, ssh_client):
    sshd.known_hosts.write_text(f"[localhost]:{sshd.port} {public_key(sshd.host_key)}\n")
    four = ssh_client.add("four", sshd, HostName="localhost", AddressFamily="inet")
    host = connect(four)
    assert host.address == "127.0.0.1"
    host.close()
    six = ssh_client.add("six", sshd, HostName="localhost", AddressFamily="inet6")
    with pytest.raises(Unreachable) as refused:  # it listens on the other one alone
        connect(six)
    assert "127.0.0.1" not in str(refused.value)


def test_a_mistake_in_the_configuration_is_quoted_in_one_line(sshd, ssh_client):
    ssh_client.add("board", sshd, NoSuchSetting="yes")
    with pytest.raises(UsageError, match=r"line 8: Bad configuration option: nosuchsetting") as no:
        connect("board")
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("key_type", ["ecdsa", "rsa"])
def test_host_keys_of_other_types_work(start_sshd, ssh_client, key_type):
    connect(ssh_client.add("board", start_sshd(key_type=key_type))).close()


def test_settings_come_from_an_included_file_too(sshd, ssh_client, tmp_path):
    ssh_client.add("board", sshd)
    included = tmp_path / "included"
    included.write_text(ssh_client.config.read_text())
    ssh_client.config.write_text(f"Include {included}\n")
    connect("board").close()


def test_a_board_behind_two_jump_hosts_is_reached(start_sshd, ssh_client):
    servers = [start_sshd(config="AllowTcpForwarding yes") for _ in range(3)]
    ssh_client.add("near", servers[0])
    ssh_client.add("middle", servers[1], ProxyJump="near")
    host = connect(ssh_client.add("board", servers[2], ProxyJump="middle"))
    with Connection(host) as session:
        assert session.hello["python"]
    assert servers[2].left() == []
    host.close()


def test_a_jump_host_that_opens_no_connection_is_named(start_sshd, ssh_client, sshd):
    ssh_client.add("jump", start_sshd(config="AllowTcpForwarding no"))
    with pytest.raises(Unreachable, match="jump host opens no connection"):
        connect(ssh_client.add("board", sshd, ProxyJump="jump"))


def test_a_jump_host_with_an_unknown_key_stops(start_sshd, ssh_client, sshd):
    jump = start_sshd()
    jump.known_hosts.write_text("")
    ssh_client.add("jump", jump)
    with pytest.raises(HostKeyRefused, match="jump: unknown host key"):
        connect(ssh_client.add("board", sshd, ProxyJump="jump"))


def test_jumps_in_a_circle_are_an_error(ssh_client, start_sshd):
    ssh_client.add("a", start_sshd(), ProxyJump="b")
    ssh_client.add("b", start_sshd(), ProxyJump="a")
    with pytest.raises(UsageError, match="loop"):
        connect("a")


def test_a_refused_login_says_what_was_tried(sshd, ssh_client, other_key):
    asked = []

    def ask(prompt: str) -> None:
        asked.append(prompt)

    alias = ssh_client.add("board", sshd, IdentityFile=other_key)
    with pytest.raises(Unreachable, match=rf"{other_key}: Authentication failed.*ssh-copy-id"):
        connect(alias, ask=ask)
    assert asked == []  # this sshd takes no password


def test_a_networks_name_in_place_of_a_host_is_told_what_is_measured(ssh_client):
    with pytest.raises(Unreachable, match=r"lite-camvid has no address: .*fastseg-export"):
        connect("lite-camvid")


def test_a_name_without_an_address_says_so_and_a_local_one_hints_at_mdns(ssh_client):
    with pytest.raises(Unreachable, match=r"no-such-board.local has no address: .*mDNS"):
        connect("no-such-board.local")


def test_a_port_that_nobody_listens_on_says_so(sshd, ssh_client):
    alias = ssh_client.add("board", sshd)
    sshd.stop()
    with pytest.raises(Unreachable, match=r"no connection to 127.0.0.1 port .*refused"):
        connect(alias)


def test_a_server_that_is_no_ssh_is_noticed_in_time(sshd, ssh_client):
    server = socket.create_server(("127.0.0.1", 0))
    kept = []
    threading.Thread(target=lambda: kept.append(server.accept()), daemon=True).start()
    begin = time.monotonic()
    with pytest.raises(Unreachable, match="no SSH there"):
        connect(ssh_client.add("board", sshd, port=server.getsockname()[1]))
    assert time.monotonic() - begin < 25
    server.close()
    kept[0][0].close()


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b@c:d", "", "host:99999999"])
def test_what_is_no_host_name_is_refused(name):
    with pytest.raises(UsageError, match="expected a host"):
        connect(name)
