"""A phone behind the user's own adb: files are pushed, and commands run in Android's shell."""

import contextlib
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from remote_bench.host.errors import DeviceFailure, Unreachable, UsageError
from remote_bench.host.host import Stream

PREFIX = "adb:"
_MOST_BYTES = 1 << 20  # of what a command says: a tool with a profile of its nodes has less
_LOOK_S = 0.1  # how late a Ctrl-C is noticed


def _never() -> None:
    """Nobody calls it off."""


class AdbHost:
    """A phone; it has no Python, so no keeper and no agent run there."""

    def __init__(self, name: str) -> None:
        """Look whether it is there.

        Raises:
            UsageError: no serial, or no adb here.
            Unreachable: no such phone, or it does not trust this machine.
        """
        self.name, self.address, self.user = name, name.removeprefix(PREFIX), ""
        self.known_as: list[str] = []
        self.weakened: list[str] = []
        if not self.address or self.address.startswith("-") or not self.address.isprintable():
            raise UsageError(f"{name}: expected adb:SERIAL; adb devices lists the serials")
        adb = shutil.which("adb")
        if adb is None:
            raise UsageError(f"{name}: no adb on PATH; install Android's platform tools")
        self._adb = [adb, "-s", self.address]
        status, said = self._run(["get-state"], 10.0)
        if status or said.strip().rpartition("\n")[2] != "device":
            advice = "adb devices lists phones; one that is unauthorized asks on its own screen"
            raise Unreachable(f"{name}: {_last(said) or 'adb gives no answer'}; {advice}")

    def start(self, command: str) -> Stream:
        """Refuse: what needs a keeper there is not for phones."""
        raise UsageError(
            f"{self.name}: a phone runs a benchmark tool alone, and nothing else of remote_bench: "
            f"remote_bench {self.name} NAME.fastseg --binary FILE"
        )

    def push(self, here: str, there: str, timeout_s: float = 300.0) -> None:
        """Copy a file or a folder.

        Raises:
            DeviceFailure: it did not arrive.
        """
        status, said = self._run(["push", here, there], timeout_s)
        if status != 0:
            why = _last(said) if status else f"it had no end in {timeout_s:g} s"
            raise DeviceFailure(f"{self.name}: adb push {there}: {why}; is there room?")

    def shell(
        self, line: str, timeout_s: float = 20.0, check: Callable[[], None] = _never
    ) -> tuple[int | None, str]:
        """Run a line of shell; return its status (None: no end in time) and what it said.

        Args:
            line: of our own making; what comes from elsewhere is quoted in it.
            timeout_s: the longest that it may take.
            check: raises where somebody has called it off.
        """
        return self._run(["shell", line], timeout_s, check)

    def close(self) -> None:
        """Do nothing: each command had a connection of its own."""

    def _run(
        self, arguments: Sequence[str], timeout_s: float, check: Callable[[], None] = _never
    ) -> tuple[int | None, str]:
        end = time.monotonic() + timeout_s
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [*self._adb, *arguments], stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                while process.poll() is None and time.monotonic() < end:
                    check()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK_S)
                status = process.poll()
            finally:
                process.kill()
                process.wait()
            said.seek(0)
            return status, said.read(_MOST_BYTES).decode("utf-8", "replace")


def quoted(arguments: Sequence[str]) -> str:
    """Return arguments for a line of shell."""
    return " ".join(map(shlex.quote, arguments))


def _last(said: str) -> str:
    return said.strip().rpartition("\n")[2][:200]
