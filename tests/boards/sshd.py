"""A real sshd without privileges: own port, own keys, a made PATH, HOME and TMPDIR."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from remote_bench.agent.process import start

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/sbin")
KEYGEN = shutil.which("ssh-keygen")


class Sshd:
    """Runs until stop(). `board` is the TMPDIR of whoever logs in; `known_hosts` approves its key.

    Args:
        folder: a new one.
        path: PATH on the board; None is this Python and the system's.
        config: further lines of sshd_config.
        key_type: of the host key.
        sftp: whether there is an SFTP subsystem.
        environment: of whoever logs in.
    """

    def __init__(
        self,
        folder: Path,
        path: str | None = None,
        config: str = "",
        key_type: str = "ed25519",
        sftp: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.config = config + ("\nSubsystem sftp internal-sftp" if sftp else "")
        self._more = environment or {}
        self.board = folder / "board"
        self.board.mkdir(parents=True)
        self.path = path or f"{Path(sys.executable).parent}:/usr/bin:/bin"
        self.host_key, self.client_key = folder / "host_key", folder / "client_key"
        make_key(self.host_key, key_type)
        make_key(self.client_key)
        shutil.copy(f"{self.client_key}.pub", folder / "authorized_keys")
        self.port = free_port()
        self.known_hosts = folder / "known_hosts"
        self.approve(self.port)
        self.start()

    def approve(self, *ports: int) -> None:
        """Write known_hosts with this server's key at some ports of 127.0.0.1."""
        key = " ".join(Path(f"{self.host_key}.pub").read_text().split()[:2])
        lines = [f"[127.0.0.1]:{port} {key}\n" for port in ports]
        self.known_hosts.write_text("".join(lines))

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists when root runs it
        file = self.folder / "sshd_config"
        own = {"TMPDIR": self.board, "PATH": self.path, "HOME": self.folder, **self._more}
        variables = " ".join(f'"{name}={value}"' for name, value in own.items())
        file.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\n"
            "UsePAM no\nStrictModes no\nPasswordAuthentication no\nPrintMotd no\n"
            f"SetEnv {variables}\n"
            f"{self.config}\n"
        )
        log = self.folder / "sshd.log"
        self.server = start(  # and end with the tests, even when they are killed
            [SSHD, "-D", "-f", str(file), "-E", str(log)],
            env=dict(os.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self.server.poll() is not None:
                raise RuntimeError(f"sshd ended: {log.read_text()}")
            time.sleep(0.02)
        raise RuntimeError("sshd does not listen")

    def sessions(self) -> list[int]:
        """Return the processes of the connections: sshd's children and theirs that are sshd."""
        return [pid for pid in descendants(self.server.pid) if name_of(pid) == "sshd"]

    def signal_sessions(self, number: signal.Signals) -> None:
        """Send a signal to every connection's sshd."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def drop(self) -> None:
        """Kill the server and its connections, as a reboot does; what they started may live on."""
        sessions = self.sessions()
        self.server.kill()
        self.server.wait()
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and its connections."""
        if self.server.poll() is None:
            self.signal_sessions(signal.SIGCONT)
            self.drop()

    def left(self) -> list[str]:
        """Return what is in the board's folder, and processes that use it."""
        return files_in(self.board) + processes_in(self.board)


def make_key(path: Path, key_type: str = "ed25519") -> None:
    """Make a key pair without a passphrase."""
    subprocess.run([KEYGEN, "-q", "-t", key_type, "-N", "", "-f", path], check=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{name}/stat").read_text()
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def name_of(pid: int) -> str:
    """Return a process's name, "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def files_in(folder: Path) -> list[str]:
    """Return what a folder holds, all levels."""
    found = [
        os.path.relpath(os.path.join(place, name), folder)
        for place, folders, files in os.walk(folder)  # what vanishes meanwhile is no error
        for name in (*folders, *files)
    ]
    return sorted(found)


def processes_in(folder: Path) -> list[str]:
    """Return the processes whose current folder, command line or environment names a folder."""
    found, wanted = [], os.fsencode(folder)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            here = os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
            if int(pid) != os.getpid() and (wanted in environment or here.startswith(wanted)):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{pid}: {command.decode('utf-8', 'replace')[:100]}")
    return found
