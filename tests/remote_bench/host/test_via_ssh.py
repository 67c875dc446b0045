"""The user's own ssh in place of paramiko: what only it can do, its errors, its bounds."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from remote_bench.host.connect import Connector
from remote_bench.host.errors import HostKeyRefused, Unreachable, UsageError
from remote_bench.host.via_ssh import SshProgram
from remote_bench.link.connection import Connection

from tests.boards.measuring import NOTICED_S, Watcher, run, wait_until_clean
from tests.boards.sshd import make_key
from tests.boards.stand_ins import make_bundle

pytestmark = pytest.mark.slow  # needs openssh-server


def sign(authority: Path, key: Path, *options: str) -> None:
    """Have an authority sign a public key: KEY-cert.pub."""
    command = ["ssh-keygen", "-q", "-s", authority, "-I", "test", *options, f"{key}.pub"]
    subprocess.run(command, check=True)


def masters(hosts: list[SshProgram]) -> list[str]:
    """Return the ssh processes that stay for others, and have not ended."""
    listed = subprocess.run(
        ["ps", "-ewwo", "args="], capture_output=True, check=True
    ).stdout.decode()
    return [line for line in listed.splitlines() if any(h._folder.name in line for h in hosts)]


@pytest.fixture
def via():
    """Connect by ssh; at the end nothing of it is left here."""
    hosts: list[SshProgram] = []

    def connect(alias: str) -> SshProgram:
        hosts.append(SshProgram(alias))
        assert masters(hosts)
        return hosts[-1]

    yield connect
    for host in hosts:
        host.close()
    end = time.monotonic() + 5
    while masters(hosts) and time.monotonic() < end:
        time.sleep(0.05)
    assert masters(hosts) == []
    assert not [host for host in hosts if Path(host._folder.name).exists()]


def test_a_run_by_ssh_logs_in_once_and_leaves_nothing(sshd, ssh_client, bundle, via):
    host = via(ssh_client.add("board", sshd, RequestTTY="force", RemoteCommand="top"))
    assert run(host, bundle=bundle).error is None
    with Connection(host) as session:
        assert session.hello["python"]
    assert (host.address, host.weakened) == ("127.0.0.1", [])
    assert (sshd.folder / "sshd.log").read_text().count("Accepted publickey") == 1
    assert sshd.left() == []


def test_certificates_of_host_and_user_are_ssh_s_business(start_sshd, ssh_client, tmp_path, via):
    authority, key = tmp_path / "authority", tmp_path / "user_key"
    make_key(authority)
    make_key(key)
    sign(authority, key, "-n", "ops,root," + os.environ.get("USER", "root"))
    folder = tmp_path / "sshd-0"
    sshd = start_sshd(
        config=f"HostCertificate {folder}/host_key-cert.pub\nTrustedUserCAKeys {authority}.pub"
    )
    sign(authority, sshd.host_key, "-h", "-n", "127.0.0.1")
    sshd.stop()
    sshd.start()
    (sshd.folder / "authorized_keys").write_text("")
    sshd.known_hosts.write_text(f"@cert-authority * {Path(f'{authority}.pub').read_text()}")
    options = {"IdentityFile": key, "CertificateFile": f"{key}-cert.pub"}
    host = via(ssh_client.add("board", sshd, **options))
    with Connection(host) as session:
        assert session.hello["python"]


def test_a_known_hosts_command_is_ssh_s_business(sshd, ssh_client, via):
    key = sshd.known_hosts.read_text().strip()
    sshd.known_hosts.write_text("")
    via(ssh_client.add("board", sshd, KnownHostsCommand=f'/bin/echo "{key}"'))


def test_what_ssh_says_of_a_refused_login_comes_in_one_line(sshd, ssh_client, tmp_path, via):
    make_key(tmp_path / "other")
    with pytest.raises(Unreachable, match=r"board: ssh: .*Permission denied \(publickey") as no:
        via(ssh_client.add("board", sshd, IdentityFile=tmp_path / "other"))
    assert "\n" not in str(no.value)


def test_what_ssh_says_of_a_host_that_is_not_there_comes_in_one_line(sshd, ssh_client, via):
    alias = ssh_client.add("board", sshd)
    sshd.stop()
    with pytest.raises(Unreachable, match=r"board: ssh: .*Connection refused\. Try: ssh board"):
        via(alias)


def test_an_unknown_host_key_stops_without_a_terminal(sshd, ssh_client, via):
    sshd.known_hosts.write_text("")
    with pytest.raises(HostKeyRefused, match=r"ssh: .*Host key verification failed"):
        via(ssh_client.add("board", sshd))


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new", "no"])
def test_a_changed_host_key_stops_whatever_the_configuration_says(
    sshd, ssh_client, tmp_path, strict, via
):
    make_key(tmp_path / "other")
    other = Path(f"{tmp_path}/other.pub").read_text()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    with pytest.raises(HostKeyRefused, match=r"ssh-keygen .*-R .* has changed and"):
        via(ssh_client.add("board", sshd, StrictHostKeyChecking=strict))


def test_a_host_key_that_nobody_checks_is_noted(sshd, ssh_client, via):
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    assert "accepts a host key unseen" in via(ssh_client.add("board", sshd, **options)).weakened[0]


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b@c:d", "", "a;b"])
def test_what_is_no_host_name_never_reaches_ssh(name):
    with pytest.raises(UsageError, match="expected a host"):
        SshProgram(name)


@pytest.mark.parametrize("more", [{"accept_key": "SHA256:x"}, {"password_fd": 0}])
def test_secrets_and_host_keys_are_left_to_ssh(more):
    given = {"accept_key": None, "password_fd": None, **more}
    with pytest.raises(UsageError, match="--via-ssh goes with no"):
        Connector(**given, via_ssh=True)


def test_a_peer_that_freezes_is_noticed_in_time_and_the_next_connection_is_a_new_one(
    sshd, ssh_client, tmp_path, within, via
):
    bundle = make_bundle(tmp_path / "big.fastseg", 40_000_000)
    host = via(ssh_client.add("board", sshd))
    frozen_at = []

    class Freezer(Watcher):
        def progress(self, done, total, fps=None) -> None:
            if total > 1e7 and done > 0.2 * total and not frozen_at:
                sshd.signal_sessions(signal.SIGSTOP)
                frozen_at.append(time.monotonic())

    with pytest.raises(Unreachable, match="no sign of life for 12 s"):
        run(host, Freezer(), bundle=bundle)
    within("noticed", NOTICED_S, frozen_at[0])
    with Connection(host) as session:
        assert session.hello["python"]
    sshd.signal_sessions(signal.SIGCONT)


@pytest.mark.parametrize("cut", ["drop", "master"])
def test_a_link_that_is_cut_is_noticed_at_once_and_leaves_nothing(
    sshd, ssh_client, within, via, cut
):
    host = via(ssh_client.add("board", sshd))
    with Connection(host) as session:
        begin = time.monotonic()
        sshd.drop() if cut == "drop" else host.break_off()
        with pytest.raises(Unreachable, match="the connection broke"):
            session.request("room", bytes=1)
    within("noticed", 5, begin)
    wait_until_clean(sshd)
