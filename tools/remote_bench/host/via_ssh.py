"""A board over the user's own ssh: what paramiko cannot do, ssh does, as ~/.ssh/config says.

One ssh logs in and stays (a master on a socket of our own), so that a key is touched and a code is
typed once; each command is a second ssh that goes through it. Its bounds are ours all the same: a
stream that is closed takes the master with it.
"""

import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from remote_bench.host.errors import HostKeyRefused, Unreachable
from remote_bench.host.live import plain
from remote_bench.host.local import ChildProcess
from remote_bench.host.login import CONNECT_S, LOGIN_S
from remote_bench.host.proxy_command import IGNORING_CTRL_C
from remote_bench.host.ssh_config import ask_ssh, parse_values, ssh_arguments

# As scp asks: nothing but the connection; and a dead peer ends the master within 15 s.
_OPTIONS = (
    "-T", "-x", "-oForwardAgent=no", "-oClearAllForwardings=yes", "-oPermitLocalCommand=no",
    "-oRemoteCommand=none", "-oServerAliveInterval=5", "-oServerAliveCountMax=2",
)  # fmt: skip
_SSH_FAILED = 255  # exit status: ssh's own error, not the command's
_LOCAL_S = 5.0  # a question to the master


class SshProgram:
    """A connected board; ssh itself checked its host key."""

    def __init__(self, name: str) -> None:
        """Log in; on a terminal ssh may ask there.

        Raises:
            Unreachable, HostKeyRefused: what ssh said.
            UsageError: not a host name, or no ssh here.
        """
        self._target = ssh_arguments(name)
        values = {key: found[-1] for key, found in parse_values(ask_ssh(name)).items()}
        self.name, self.notes = name, list[str]()
        self.address, self.user = values["hostname"], values.get("user", "")
        jumps = re.split(r"[,@\s]+|:\d+", values.get("proxyjump", ""))
        self.known_as = [name for name in jumps if name and name != "none"]
        self.weakened: list[str] = []
        options = list(_OPTIONS)
        if values.get("connecttimeout", "none") == "none":
            options.append(f"-oConnectTimeout={CONNECT_S:.0f}")
        if values.get("stricthostkeychecking") in ("false", "no", "off"):
            # What no adds to accept-new is that a changed key does not stop.
            options.append("-oStrictHostKeyChecking=accept-new")
            self.weakened.append(
                "ssh accepts a host key unseen, as StrictHostKeyChecking no in ~/.ssh/config "
                "asks: another board could have answered"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="remote_bench-")
        self._ssh = ["ssh", *options, f"-oControlPath={self._folder.name}/s"]
        try:
            self._log_in(asking=sys.stdin.isatty())
        except BaseException:
            self.close()
            raise

    def start(self, command: str) -> "_Session":
        """Start a command line, without a terminal; connect anew where the connection broke."""
        if not self.lives():
            self._log_in(asking=False)
        return _Session(self, [*self._ssh, "-oBatchMode=yes", *self._target, command])

    def lives(self) -> bool:
        """Tell whether the master is there."""
        return self._ask_master("check")

    def break_off(self) -> None:
        """End the master, and so all that goes through it."""
        self._ask_master("exit")

    def close(self) -> None:
        """Break the connection for good."""
        self.break_off()
        with suppress(OSError):
            self._folder.cleanup()

    def _ask_master(self, what: str) -> bool:
        command = [*self._ssh, "-O", what, *self._target]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LOCAL_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _log_in(self, asking: bool) -> None:
        # A file takes what it says: a pipe would be held open by the master. At a terminal it may
        # also say whom to touch, and what it logs alone goes into the file.
        said = Path(self._folder.name, "said")
        stay = ["-M", "-N", "-f", f"-oControlPersist={LOGIN_S:.0f}"]  # alone, if we are killed
        way = ["-E", str(said)] if asking else ["-oBatchMode=yes"]
        with said.open("wb") as file:
            process = subprocess.Popen(
                ["/bin/sh", "-c", IGNORING_CTRL_C, *self._ssh, *stay, *way, *self._target],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=None if asking else file, start_new_session=not asking,
            )  # fmt: skip
        try:
            status = process.wait(LOGIN_S if asking else 4 * CONNECT_S)
        except BaseException as error:
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Unreachable(
                f"{self.name}: ssh did not log in within {error.timeout:.0f} s. Try: ssh "
                f"{self.name} true"
            ) from error
        if status != 0:
            raise _error(self.name, said.read_text("utf-8", "replace"))


def _error(name: str, said: str) -> Unreachable | HostKeyRefused:
    lines = [plain(line) for line in said.splitlines() if re.search(r"\w", line)]
    text = f"{name}: ssh: {' / '.join(lines[-5:]) or 'it said nothing'}"
    if "Host key verification failed" in said:
        return HostKeyRefused(text)
    return Unreachable(f"{text.rstrip('.')}. Try: ssh {name} true")


class _Session(ChildProcess):
    def __init__(self, host: SshProgram, command: list[str]) -> None:
        self._host = host
        super().__init__(command)

    def status(self, timeout_s: float) -> int | None:
        # None where the connection broke, -1 where a signal ended it.
        status = super().status(timeout_s)
        if status is None or status not in (_SSH_FAILED, *range(-64, 0)):
            return status
        return -1 if self._host.lives() else None

    def close(self) -> None:
        if self._process.poll() is None:  # a frozen peer, or a command that goes on
            self._host.break_off()
            self._process.kill()
        super().close()
