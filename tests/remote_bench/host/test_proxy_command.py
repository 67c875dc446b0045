"""ProxyCommand as people write it, against a real sshd."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remote_bench.host.errors import HostKeyRefused, Unreachable
from remote_bench.link.connection import Connection

from tests.boards.measuring import connect

pytestmark = pytest.mark.slow  # needs openssh-server

# What nc does, which is not everywhere.
NC = """import os, select, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, peer], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else peer.recv(65536)
        if not data:
            sys.exit()
        peer.sendall(data) if ready == 0 else os.write(1, data)
"""


@pytest.fixture
def nc(tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "nc.py").write_text(NC)
    return f"{sys.executable} '{folder}/nc.py'"


@pytest.fixture
def unreachable():
    """What a HostName of the board's is that only the proxy knows."""
    return "board.nowhere.invalid"


@pytest.mark.parametrize(
    "command",
    [
        "{nc} $LOOPBACK %p 2>/dev/null",
        """sh -c "{nc} $(echo %h | sed s/board.*/127.0.0.1/) '%p'" """,
        'sh -c "echo connecting >&2; {nc} 127.0.0.1 %p"',
        "ssh -W 127.0.0.1:%p jump",
    ],
)
def test_a_board_is_reached_by_a_proxy_command(
    start_sshd, ssh_client, monkeypatch, nc, unreachable, command
):
    monkeypatch.setenv("LOOPBACK", "127.0.0.1")
    sshd = start_sshd()
    ssh_client.add("jump", start_sshd(config="AllowTcpForwarding yes"))
    name = f"[{unreachable}]:{sshd.port}"
    sshd.known_hosts.write_text(f"{name} {Path(f'{sshd.host_key}.pub').read_text()}")
    proxy = command.format(nc=nc)
    host = connect(ssh_client.add("board", sshd, HostName=unreachable, ProxyCommand=proxy))
    assert host.address == unreachable
    with Connection(host) as session:
        assert session.hello["python"]
    assert sshd.left() == []
    host.close()
    assert not [one for one in children() if "nc.py" in one or "-W" in one]


def children() -> list[str]:
    listed = subprocess.run(
        ["ps", "-wwo", "args=", "--ppid", str(os.getpid())], capture_output=True
    )
    return listed.stdout.decode().splitlines()


def test_a_jump_host_may_have_a_proxy_command_of_its_own(start_sshd, ssh_client, sshd, nc):
    jump = start_sshd(config="AllowTcpForwarding yes")
    ssh_client.add("jump", jump, ProxyCommand=f"{nc} %h %p")
    host = connect(ssh_client.add("board", sshd, ProxyJump="jump"))
    with Connection(host) as session:
        assert session.hello["python"]
    host.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program %h", r"status 127, and said: .*no-such-program"),
        ("sh -c 'echo tunnel is down >&2; false'", r"status 1, and said: tunnel is down"),
        ("printf 'access \\033[31mdenied\\n' >&2", r"said: access  \[31mdenied"),
        ("true", r"ended with status 0$"),
    ],
)
def test_a_proxy_command_that_fails_says_why(sshd, ssh_client, command, said):
    begin = time.monotonic()
    with pytest.raises(Unreachable, match=rf"board: no SSH by its ProxyCommand.*{said}"):
        connect(ssh_client.add("board", sshd, ProxyCommand=command))
    assert time.monotonic() - begin < 5


def test_the_host_key_behind_a_proxy_command_is_checked(sshd, ssh_client, nc):
    sshd.known_hosts.write_text("")
    with pytest.raises(HostKeyRefused, match="unknown host key"):
        connect(ssh_client.add("board", sshd, ProxyCommand=f"{nc} %h %p"))
    assert not [one for one in children() if "nc.py" in one]


def test_a_proxy_command_that_ends_breaks_the_connection_and_the_next_one_starts_it_anew(
    sshd, ssh_client, nc
):
    host = connect(ssh_client.add("board", sshd, ProxyCommand=f"{nc} %h %p"))
    with Connection(host) as session:
        host._transports[-1].sock._process.kill()
        with pytest.raises(Unreachable, match="the connection broke"):
            session.request("room", bytes=1)
    with Connection(host) as session:
        assert session.hello["python"]
    host.close()


def test_a_ctrl_c_does_not_reach_a_proxy_command(sshd, ssh_client, nc):
    host = connect(ssh_client.add("board", sshd, ProxyCommand=f"{nc} %h %p"))
    host._transports[-1].sock._process.send_signal(signal.SIGINT)
    with Connection(host) as session:
        assert session.hello["python"]
    host.close()
