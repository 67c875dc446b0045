"""Ways to log in, against a real sshd and real agents; a double where PAM would be needed."""

import base64
import getpass
import ipaddress
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest
from remote_bench.host.connect import Connector
from remote_bench.host.errors import Unreachable
from remote_bench.host.login import nobody
from remote_bench.host.ssh import SshHost
from remote_bench.host.via_ssh import SshProgram

from tests.boards.measuring import Watcher
from tests.boards.password_server import PasswordServer
from tests.boards.sshd import make_key
from tests.doubles.fastseg_run import running

pytestmark = pytest.mark.slow  # needs openssh-server

SECRET = "pass phrase with ü"


@pytest.fixture
def agent(tmp_path):
    """Start an ssh-agent on a socket of its own; add(keys) returns the socket."""
    socket = tmp_path / "agent socket"

    def add(*keys: Path, options: tuple[str, ...] = ()) -> Path:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        if keys:
            subprocess.run(["ssh-add", "-q", *options, *keys], env=environment, check=True)
        return socket

    with running(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            assert process.poll() is None
        yield add


def lock(key: Path, *options: str) -> Path:
    """Give a key a passphrase."""
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", SECRET, "-a", "1", *options, "-f", key]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return key


def connect(alias: str, password: str | None = None, passphrase: str | None = None) -> list[str]:
    """Log in and leave; return the prompts."""
    asked: list[str] = []

    def reply(text: str | None):
        return lambda prompt: (asked.append(prompt), text)[1]

    SshHost(alias, reply(password), passphrase=reply(passphrase)).close()
    return asked


def make_keys(folder: Path, count: int) -> list[Path]:
    keys = [folder / f"other{number}" for number in range(count)]
    for key in keys:
        make_key(key)
    return keys


def fd(text: str) -> int:
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return reading


@pytest.mark.parametrize("options", [(), ("-m", "PEM")])
def test_an_encrypted_key_is_opened_by_its_passphrase(sshd, ssh_client, options):
    key_type = "ecdsa" if options else "ed25519"
    key = sshd.folder / "own"
    make_key(key, key_type)
    (sshd.folder / "authorized_keys").write_text(Path(f"{key}.pub").read_text())
    lock(key, *options)
    alias = ssh_client.add("board", sshd, IdentityFile=key)
    assert connect(alias, passphrase=SECRET) == [f"Passphrase of {key} (Enter: another way): "]
    with pytest.raises(Unreachable, match="own: that passphrase does not open it") as no:
        connect(alias, passphrase="wr0ng")
    assert "wr0ng" not in str(no.value)
    with pytest.raises(Unreachable, match=r"own: encrypted; .*ssh-add.* --passphrase-fd"):
        connect(alias)


def test_a_key_whose_public_half_is_denied_logs_in_all_the_same(sshd, ssh_client, monkeypatch):
    read_bytes = Path.read_bytes

    def denied(path):
        if path.suffix == ".pub":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    connect(ssh_client.add("board", sshd, IdentityFile=sshd.client_key))


def test_a_passphrase_comes_from_its_own_file_descriptor(sshd, ssh_client):
    alias = ssh_client.add("board", sshd, IdentityFile=lock(sshd.client_key))
    Connector(None, None, fd(f"{SECRET}\n")).connect(alias, Watcher()).close()
    with pytest.raises(Unreachable, match="encrypted"):
        Connector(None, None).connect(alias, Watcher())


@pytest.mark.parametrize("offered", ["publickey,password", "password"])
@pytest.mark.parametrize("kind", ["OPENSSH", "PKCS8"])
def test_what_opens_a_key_is_never_sent_to_a_board_whatever_it_was_given_as(
    ssh_client, tmp_path, offered, kind
):
    server, key = PasswordServer("something else"), tmp_path / "key"
    make_key(key, "ecdsa")
    lock(key, *(["-m", kind] if kind == "PKCS8" else []))
    name = f"[127.0.0.1]:{server.port} {server.key.get_name()} {server.key.get_base64()}\n"
    (tmp_path / "known").write_text(name)
    with ssh_client.config.open("a") as config:
        config.write(
            f"Host board\n HostName 127.0.0.1\n Port {server.port}\n IdentityFile {key}\n"
            f" UserKnownHostsFile {tmp_path}/known\n"
        )
    server.get_allowed_auths = lambda user: offered
    with pytest.raises(Unreachable, match="opens a key, and so the board never saw it"):
        Connector(None, fd(f"{SECRET}\n")).connect("board", Watcher())
    assert server.tried == []
    server.close()


def test_a_way_that_the_configuration_forbids_is_not_tried(sshd, ssh_client):
    with pytest.raises(Unreachable) as refused:
        connect(ssh_client.add("board", sshd, PubkeyAuthentication="no"), password="x")
    assert "client_key" not in str(refused.value)


def test_a_passphrase_that_is_given_as_a_password_opens_its_key(sshd, ssh_client):
    alias = ssh_client.add("board", sshd, IdentityFile=lock(sshd.client_key))
    Connector(None, fd(f"{SECRET}\n")).connect(alias, Watcher()).close()


CONNECT = """
from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError
from tests.boards.measuring import Watcher
try:
    Connector(None, None, None, via_ssh={}).connect("board", Watcher()).close()
except BenchError as error:
    print("code", error.exit_code, error)
else:
    print("connected")
"""


def at_a_terminal(code: str, *answers: str) -> str:
    """Run Python code at a terminal of its own where somebody answers; return all on its screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    screen = ""
    try:
        for text in (*answers, ""):
            while not re.search(r"(Type yes|\(yes/no|[Pp]assphrase).*: ?$|\? $", screen):
                assert select.select([terminal], [], [], 60)[0], screen
                try:
                    screen += os.read(terminal, 4096).decode()
                except OSError:  # it ended
                    break
            if text:
                os.write(terminal, f"{text}\n".encode())
                screen += " \n"
    finally:
        os.close(terminal)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return screen


@pytest.mark.parametrize("via_ssh", [False, True])
def test_at_a_terminal_host_key_and_passphrase_are_asked_for(
    sshd, ssh_client, monkeypatch, via_ssh
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    known, code = sshd.known_hosts.read_text(), CONNECT.format(via_ssh)
    sshd.known_hosts.write_text("")
    ssh_client.add("board", sshd, IdentityFile=lock(sshd.client_key))
    refused = at_a_terminal(code, "no")
    assert "code 5 board: " in refused and sshd.known_hosts.read_text() == ""
    screen = at_a_terminal(code, "yes", SECRET)
    assert "connected" in screen and SECRET not in screen
    assert sshd.known_hosts.read_text().split()[:2] == known.split()[:2]


CTRL_C = """
import os, signal
from remote_bench.host.connect import Connector
from remote_bench.link.connection import Connection
from tests.boards.measuring import Watcher
host = Connector(None, None, None, via_ssh={}).connect("board", Watcher())
signal.signal(signal.SIGINT, signal.SIG_IGN)
with Connection(host) as session:
    os.killpg(os.getpgrp(), signal.SIGINT)
    session.request("room", bytes=1)
    print("still there")
host.close()
"""


@pytest.mark.parametrize("via_ssh", [False, True])
def test_a_ctrl_c_at_the_terminal_leaves_the_connection_to_those_who_clean_up(
    start_sshd, ssh_client, monkeypatch, via_ssh
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    ssh_client.add("jump", start_sshd(config="AllowTcpForwarding yes"))
    ssh_client.add("board", start_sshd(), ProxyCommand="ssh -W 127.0.0.1:%p jump")
    assert "still there" in at_a_terminal(CTRL_C.format(via_ssh))


@pytest.mark.parametrize("how", ["path", "variable", "SSH_AUTH_SOCK"])
def test_the_agent_of_the_configuration_is_asked(sshd, ssh_client, agent, monkeypatch, how):
    socket = agent(sshd.client_key)
    monkeypatch.setenv("MY_AGENT", str(socket))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket) if how == "SSH_AUTH_SOCK" else "/none")
    said = {"path": f'"{socket}"', "variable": "$MY_AGENT", "SSH_AUTH_SOCK": "SSH_AUTH_SOCK"}[how]
    keys = {"IdentityFile": "/absent", "IdentitiesOnly": "no"}
    assert connect(ssh_client.add("board", sshd, IdentityAgent=said, **keys)) == []


def test_no_agent_is_asked_where_the_configuration_says_none(sshd, ssh_client, agent, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent(sshd.client_key)))
    keys = {"IdentityFile": "/absent", "IdentitiesOnly": "no"}
    with pytest.raises(Unreachable, match="no key was found"):
        connect(ssh_client.add("board", sshd, IdentityAgent="none", **keys))


def test_an_agent_that_is_not_there_is_said_and_key_files_do(sshd, ssh_client, tmp_path):
    absent = tmp_path / "absent"
    assert connect(ssh_client.add("board", sshd, IdentityAgent=absent)) == []
    with pytest.raises(Unreachable, match=rf"agent {absent}: .*No such file"):
        connect(ssh_client.add("b2", sshd, IdentityAgent=absent, IdentityFile="/none"))


@pytest.mark.parametrize("named", ["key", "key.pub", "locked"])
def test_with_identities_only_the_agent_s_named_key_is_taken_among_many(
    sshd, ssh_client, agent, tmp_path, named
):
    socket = agent(*make_keys(tmp_path, 7), sshd.client_key)
    file = sshd.client_key
    if named == "key.pub":  # as a password manager leaves it: no private key in a file
        file = Path(f"{file}.pub")
        sshd.client_key.unlink()
    elif named == "locked":  # and nothing beside it that says whose it is
        lock(file)
        Path(f"{file}.pub").unlink()
    alias = ssh_client.add("board", sshd, IdentityAgent=f'"{socket}"', IdentityFile=file)
    assert connect(alias) == []


def test_the_named_key_comes_before_the_agent_s_others(sshd, ssh_client, agent, tmp_path):
    socket = agent(*make_keys(tmp_path, 7))
    options = {"IdentityAgent": f'"{socket}"', "IdentitiesOnly": "no"}
    assert connect(ssh_client.add("board", sshd, **options)) == []


@pytest.mark.parametrize("most", [6, 3])
def test_an_agent_with_more_keys_than_the_board_lets_one_try_is_told_what_to_set(
    start_sshd, ssh_client, agent, tmp_path, most
):
    sshd = start_sshd(config=f"MaxAuthTries {most}")
    socket = agent(*make_keys(tmp_path, 7))
    keys = {"IdentityFile": "/absent", "IdentitiesOnly": "no"}
    with pytest.raises(Unreachable, match="set IdentitiesOnly and IdentityFile"):
        connect(ssh_client.add("board", sshd, IdentityAgent=f'"{socket}"', **keys))


def test_a_key_that_its_agent_does_not_let_go_is_no_end(
    sshd, ssh_client, agent, tmp_path, monkeypatch
):
    monkeypatch.delenv("DISPLAY", raising=False)
    [other] = make_keys(tmp_path, 1)
    socket = agent(other, options=("-c",))  # to be confirmed, and nobody is there
    options = {"IdentityAgent": f'"{socket}"', "IdentitiesOnly": "no"}
    both = ssh_client.add("board", sshd, IdentityFile=other, **options)
    with ssh_client.config.open("a") as config:
        config.write(f"  IdentityFile {sshd.client_key}\n")
    assert connect(both) == []


def test_a_certificate_in_the_agent_or_beside_the_key_logs_in(
    start_sshd, ssh_client, agent, tmp_path
):
    authority, key = tmp_path / "authority", tmp_path / "key"
    make_key(authority)
    make_key(key)
    sshd = start_sshd(config=f"TrustedUserCAKeys {authority}.pub")
    (sshd.folder / "authorized_keys").write_text("")
    user = subprocess.run(["id", "-un"], capture_output=True, check=True).stdout.decode().strip()
    command = ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", user, f"{key}.pub"]
    subprocess.run(command, check=True)
    socket = agent(key)
    assert connect(ssh_client.add("beside", sshd, IdentityFile=key)) == []
    keys = {"IdentityFile": "/absent", "IdentitiesOnly": "no"}
    assert connect(ssh_client.add("held", sshd, IdentityAgent=f'"{socket}"', **keys)) == []


def test_a_hardware_key_file_is_said_to_need_ssh(sshd, ssh_client, tmp_path):
    kind = b"sk-ssh-ed25519@openssh.com"

    def text(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    public = text(kind, b"\1" * 32, b"ssh:")
    body = (
        b"openssh-key-v1\0" + text(b"none", b"none", b"") + b"\0\0\0\1" + text(public, b"\0" * 64)
    )
    file = tmp_path / "id_ed25519_sk"
    file.write_bytes(
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
        + base64.encodebytes(body)
        + b"-----END OPENSSH PRIVATE KEY-----\n"
    )
    with pytest.raises(Unreachable, match="id_ed25519_sk: a hardware key; add --via-ssh"):
        connect(ssh_client.add("board", sshd, IdentityFile=file))


class CodeServer(PasswordServer):
    """Asks for a password and then for a code, as PAM with a second factor does."""

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_interactive(self, username, submethods):
        prompts = [("Password: ", False), ("Verification \033[1mcode: ", False)]
        return paramiko.InteractiveQuery("", "Duo", *prompts)

    def check_auth_interactive_response(self, responses):
        self.tried += responses
        good = responses == [self.password, "123456"]
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED


def test_a_board_that_asks_for_a_code_after_the_password_gets_both(ssh_client, tmp_path):
    server = CodeServer("s3cret")
    name = f"[127.0.0.1]:{server.port} {server.key.get_name()} {server.key.get_base64()}\n"
    (tmp_path / "known").write_text(name)
    with ssh_client.config.open("a") as config:
        config.write(
            f"Host board\n HostName 127.0.0.1\n Port {server.port}\n IdentityFile /absent\n"
            f" User me\n UserKnownHostsFile {tmp_path}/known\n"
        )
    asked = []

    def password(prompt: str) -> str:
        asked.append(prompt)
        return "s3cret" if prompt.startswith("Password of") else "123456"

    SshHost("board", password).close()
    assert asked == ["Password of me@127.0.0.1: ", "me@127.0.0.1 asks: Duo Verification  [1mcode: "]
    server.close()


def test_a_board_that_asks_for_more_than_a_key_is_told_so(start_sshd, ssh_client):
    sshd = start_sshd(config="AuthenticationMethods publickey,keyboard-interactive")
    with pytest.raises(Unreachable, match=r"accepted, but \['keyboard-interactive'\] is asked for"):
        connect(ssh_client.add("board", sshd), password="never asked for")


@pytest.mark.parametrize("form", ["::1", "me@::1", "[::1]:{port}", "me@[::1]:{port}"])
def test_an_ipv6_board_is_reached_in_every_form_of_its_address(start_sshd, ssh_client, form):
    reach(start_sshd, ssh_client, "::1", form)


@pytest.mark.parametrize("form", ["{}", "me@{}", "[{}]:{port}", "ssh://me@[{}]:{port}"])
def test_a_board_on_a_usb_cable_is_reached_by_its_address_with_a_zone(start_sshd, ssh_client, form):
    lines = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    local = [(line[0], line[5]) for line in lines if line[3] == "20"]  # of one link alone
    if not local:
        pytest.skip("no link-local IPv6 address here")
    digits, interface = local[0]
    reach(start_sshd, ssh_client, f"{ipaddress.IPv6Address(int(digits, 16))}%{interface}", form)


def reach(start_sshd, ssh_client, address: str, form: str) -> None:
    """Log in to a real sshd that listens on an address."""
    sshd = start_sshd(config=f"ListenAddress {address}")
    key = " ".join(Path(f"{sshd.host_key}.pub").read_text().split()[:2])
    sshd.known_hosts.write_text(f"[{address}]:{sshd.port} {key}\n")
    name = form.format(address, port=sshd.port).replace("me@", f"{getpass.getuser()}@")
    ssh_client.add(f"{address.partition('%')[0]}*", sshd, HostName="%h")
    for host in (SshHost(name, nobody), SshProgram(name)):
        assert host.address == address
        host.close()
