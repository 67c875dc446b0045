"""The workstation's end of a connection to a keeper: requests, replies, files both ways, events.

One thread reads, one pings, one watches: a peer that gives no sign of life within the limits is
given up by breaking the connection, which wakes whoever waits in a send or a receive.
"""

import base64
import contextlib
import getpass
import hashlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from remote_bench.host.errors import (
    BenchError,
    BoardBusy,
    DeviceFailure,
    MissingRequirement,
    Unreachable,
    UsageError,
)
from remote_bench.host.host import Host
from remote_bench.link import payload
from remote_bench.messages import Messages, encode

Progress = Callable[[int, int], None]  # bytes there, bytes in all
_SAID_CHARACTERS = 500  # of what a board printed: its last few lines, in a message of one
_PING_S = 2.0  # a keeper gives a silent workstation up after 20 s
_LOOK_S = 0.5  # how late a silence is noticed, beside the limit
_TICK_S = 0.05  # how late a progress bar moves
_STATUS_S = 2.0  # an exit status comes with the end of the output, or never
_END_S = 10.0  # a keeper that said its last word ends at once
_CHUNK = 1 << 15  # of an upload: a progress bar moves twice a second on a slow link of 64 kB/s
_REFUSALS: dict[str, type[BenchError]] = {  # by the kind that the keeper gives
    "busy": BoardBusy,
    "disk_full": MissingRequirement,
    "no_folder": MissingRequirement,
    "read_only": MissingRequirement,
    "denied": MissingRequirement,
    "exists": UsageError,
    "no_run": UsageError,
}
_MOST_WAITING = 10_000  # events, hours of a run; then the board has to wait
_Events = queue.Queue[dict[str, Any] | None]  # None: there will be no more; always room for that


@dataclass(frozen=True)
class Limits:
    """How long a board may be silent, in s, before it is given up; the user's page has them too."""

    shell_s: float = 12.0  # until its /bin/sh answers, which it does at once
    start_s: float = 90.0  # until its Python does: slow where the board is busy, or emulated
    keeper_s: float = 12.0  # the keeper sends something every second
    agent_s: float = 30.0  # so does the agent; it starts slowly from an SD card, and at a build
    search_s: float = 20.0  # a lost board; a network that is switched over is back by then
    reply_s: float = 900.0  # unpacking wheels on an SD card takes minutes; silence is known before


LIMITS = Limits()


class Connection:
    """A keeper on a board. A context manager: leaving it ends the keeper and all that it holds."""

    def __init__(self, host: Host, limits: Limits = LIMITS, **settings: Any) -> None:
        """Start a keeper.

        Args:
            host: where.
            limits: of the board's silence.
            settings: "base", "keep" and "root" of the keeper.

        Raises:
            Unreachable: the connection broke or gave no answer in time.
            MissingRequirement: no Python, or no place for a work folder.
        """
        self.host = host
        self.hello: dict[str, Any] = {}
        self._limits = limits
        self._received = 0  # bytes of an upload that the board said it has
        self._replies, self._agent = _Events(), _Events()
        token = secrets.token_hex(8)  # marks the lines of this connection
        self._messages = Messages(token)
        self._shell_came = self._keeper_came = False
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._why_lost: BenchError | None = None
        self._stream = host.start(payload.COMMAND)
        self._heard = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            who = f"{getpass.getuser()}@{socket.gethostname()}"
            self._take()  # the shell's sign; the watcher knows shorter bounds
            self._send(payload.program({"token": token, "who": who, **settings}))
            self.hello = self._take()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._ping, daemon=True).start()

    def request(
        self, operation: str, on_wait: Callable[[], None] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Ask the keeper for one operation and return its reply.

        Args:
            operation: the name of one of the keeper's operations.
            on_wait: called now and then until the reply comes.
            fields: arguments of the operation.

        Raises:
            Unreachable: the connection broke.
            BenchError: the keeper refuses; the class tells the exit code.
        """
        self._begin(operation, **fields)
        end = time.monotonic() + self._limits.reply_s
        while on_wait and self._replies.empty() and time.monotonic() < end:
            on_wait()
            time.sleep(_TICK_S)
        return self._take(max(_TICK_S, end - time.monotonic()))

    def upload(self, file: BinaryIO, progress: Progress) -> str:
        """Bring a file into the board's store and return its SHA-256.

        What is there is not sent again. It arrives under a temporary name, is hashed there, and
        only then gets its own; a half one that an earlier connection left is continued if it is
        the beginning of this file.

        Raises:
            Unreachable: the connection broke; what arrived waits for the next attempt.
            MissingRequirement: the board's disk is full.
        """
        size = file.seek(0, 2)
        sha256 = _hash_prefix(file, size)
        offer = self.request("offer", sha256=sha256, size=size)
        have, prefix_sha256 = offer.get("have"), offer.get("prefix_sha256")
        if type(have) is not int or not 0 <= have <= size:
            raise self._strange(f"it has {have!r:.40} bytes of a file of {size}")
        if have == size and prefix_sha256 == sha256:
            progress(size, size)
            return sha256
        if prefix_sha256 != _hash_prefix(file, have):
            self.request("restart", sha256=sha256)
            have = 0
        file.seek(have)
        self._received = 0
        while chunk := file.read(_CHUNK):
            self._begin("data", chunk)
            progress(have + self._received, size)
        self.request("commit", lambda: progress(have + self._received, size), sha256=sha256)
        return sha256

    def get(self, name: str, most_bytes: int) -> bytes:
        """Return a file of the work folder.

        Raises:
            BenchError: it is not there, or bigger than most_bytes.
        """
        self._begin("get", name=name, most=most_bytes)
        content = bytearray()
        while (event := self._take())["event"] == "chunk":
            try:
                content += base64.b64decode(event["data"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._strange(f"a piece of {name} that is no base64") from error
            if len(content) > most_bytes:
                raise DeviceFailure(
                    f"{self.host.name}: {name} is bigger than it said; measure again"
                )
        return bytes(content)

    def agent_events(self, silent_s: float | None = None) -> Iterator[dict[str, Any] | None]:
        """Yield the agent's events up to "ended", and None now and then meanwhile.

        Args:
            silent_s: instead of the limit on the agent's silence.

        Raises:
            Unreachable: the connection broke.
            DeviceFailure: the agent itself fell silent.
        """
        silent_s = silent_s or self._limits.agent_s
        heard, event = time.monotonic(), None
        while event is None or event["event"] != "ended":
            event = self._next(self._agent, _LOOK_S)
            if event is not None:
                heard = time.monotonic()
            elif time.monotonic() - heard > silent_s:
                raise DeviceFailure(
                    f"{self.host.name}: the agent gave no sign of life for {silent_s:.0f} s: the "
                    "board is overloaded, or an engine hangs; try again, or another target"
                )
            yield event

    def finish(self) -> dict[str, Any]:
        """Have the keeper give everything up; return what the board has before and after."""
        self._send(encode("finish"))
        inventory: dict[str, Any] | None = None
        while inventory is None:  # replies that nobody waited for may come first
            inventory = self._take_any(self._limits.reply_s).get("inventory")
        self._closed.set()
        self._stream.status(_END_S)  # then it is gone, too
        return inventory

    def close(self) -> None:
        """Break the connection: the keeper cleans up by itself."""
        self._closed.set()
        self._stream.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the keeper in good order where the connection still lives."""
        try:
            if not self._closed.is_set():
                with contextlib.suppress(BenchError):
                    self.finish()
        finally:
            self.close()

    def _begin(self, operation: str, body: bytes = b"", **fields: Any) -> None:
        # Also raises the refusal of an earlier request, whose reply nobody waited for.
        if not self._replies.empty():
            self._take()
        if body:
            fields["body"] = len(body)
        self._send(encode(operation, **fields) + body)

    def _take_any(self, timeout_s: float) -> dict[str, Any]:
        event = self._next(self._replies, timeout_s)
        if event is None:
            raise Unreachable(
                f"{self.host.name}: no answer within {timeout_s:.0f} s, though the board is there; "
                "try again, with --folder on a faster disk"
            )
        return event

    def _take(self, timeout_s: float | None = None) -> dict[str, Any]:
        event = self._take_any(timeout_s or self._limits.reply_s)
        if not event.get("ok", True):
            error = _REFUSALS.get(str(event.get("kind")), DeviceFailure)
            raise error(f"{self.host.name}: {event.get('message')}")
        return event

    def _strange(self, said: str) -> DeviceFailure:
        return DeviceFailure(
            f"{self.host.name}: our program on the board said what makes no sense, {said}; start "
            "it again"
        )

    def _next(self, events: _Events, timeout_s: float) -> dict[str, Any] | None:
        try:
            event = events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is None:
            events.put(None)  # for whoever asks next
            raise self._lost()
        return event

    def _send(self, data: bytes) -> None:
        with self._sending:
            try:
                self._stream.send(data)
            except (OSError, ValueError) as error:  # broken, or closed by our watcher
                raise self._lost() from error

    def _lost(self) -> BenchError:
        # Why the stream ended, from what there is: our watcher, the exit status, what it said.
        self._closed.set()
        name = self.host.name
        if self._why_lost:
            return self._why_lost
        status = self._stream.status(_STATUS_S)
        self._reader.join(_STATUS_S)  # what it said last is read too
        said = _one_line(f"{self._stream.errors()}\n{self._messages.noise}")
        if status is None:
            return Unreachable(f"{name}: the connection broke")
        if status == payload.NO_PYTHON:
            return MissingRequirement(
                f"{name} has no Python 3.6 or newer ({said}); install it on the board, for "
                "instance with: sudo apt-get install python3"
            )
        if not self._shell_came:
            return Unreachable(
                f"{name}: its login shell ended with status {status} before our program began, "
                f"and said: {said or 'nothing'}. Expected an account whose shell runs /bin/sh, "
                "and no forced command"
            )
        killed = "killed, probably for lack of memory; " if status in (-9, -1, 137) else ""
        return DeviceFailure(
            f"{name}: our program on the board ended with status {status}: {killed}{said}"
        )

    # Threads.

    def _read(self) -> None:
        while chunk := self._receive():
            events = self._messages.feed(chunk)
            if self._keeper_came or events:  # what a login shell prints is no sign of life
                self._heard = time.monotonic()
            for event in events:
                self._sort(event)
        self._end_queues()

    def _sort(self, event: dict[str, Any]) -> None:
        self._shell_came = True
        self._keeper_came = self._keeper_came or event["event"] != "shell"
        if event["event"] in ("shell", "hello", "reply", "chunk"):
            self._hand_over(self._replies, event)
        elif event["event"] == "received":
            more = event.get("bytes")
            self._received += more if type(more) is int else 0  # for a progress bar alone
        elif event["event"] != "alive":
            self._hand_over(self._agent, event)

    def _hand_over(self, events: _Events, event: dict[str, Any]) -> None:
        # Where nobody takes them the board has to wait, and after a while it is given up.
        end = time.monotonic() + self._limits.keeper_s
        while events.qsize() >= _MOST_WAITING and not self._closed.wait(_TICK_S):
            self._heard = time.monotonic()  # the board speaks: it is we who do not listen
            if self._heard > end:
                self._give_up(
                    DeviceFailure(
                        f"{self.host.name}: our program on the board sent more than "
                        f"{_MOST_WAITING} events that nothing here waited for; start it again"
                    )
                )
        if not self._closed.is_set():  # else nobody will ever take it
            events.put(event)

    def _receive(self) -> bytes:
        try:
            return self._stream.receive()
        except (OSError, ValueError):  # broken, or closed by us
            return b""

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_S):
            bound_s, message = self._bound()
            if time.monotonic() - self._heard > bound_s:
                self._give_up(Unreachable(f"{self.host.name}: {message}"))

    def _bound(self) -> tuple[float, str]:
        # How long the board may be silent now, and what it means if it is.
        limits, said = self._limits, _one_line(self._messages.noise)
        said = f", and said: {said}" if said else ""
        if self._keeper_came:
            silent = f"no sign of life for {limits.keeper_s:.0f} s"
            return limits.keeper_s, f"{silent}: the board or the connection hangs"
        if self._shell_came:
            return limits.start_s, (
                f"its /bin/sh answered, but its Python did not start within {limits.start_s:.0f} s"
                f"{said}: the board is overloaded, or that Python hangs"
            )
        return limits.shell_s, (
            f"its login shell did not start /bin/sh within {limits.shell_s:.0f} s{said}. Expected "
            "a board that does not hang, an account without a forced command, and no profile of "
            "its shell that waits for input"
        )

    def _give_up(self, why: BenchError) -> None:
        self._why_lost = why
        self._closed.set()
        self._stream.close()
        self._end_queues()

    def _end_queues(self) -> None:
        for events in (self._replies, self._agent):
            events.put(None)

    def _ping(self) -> None:
        while not self._closed.wait(_PING_S):
            if self._sending.acquire(blocking=False):  # else data is on its way, which will do
                try:
                    self._stream.send(encode("ping"))
                except (OSError, ValueError):
                    return
                finally:
                    self._sending.release()


def _one_line(text: str) -> str:
    """Return the end of what a board printed, for a message."""
    lines = filter(None, map(str.strip, text.splitlines()))
    return " / ".join(lines)[-_SAID_CHARACTERS:]


def _hash_prefix(file: BinaryIO, count: int) -> str:
    """Return the SHA-256 of a file's first bytes in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()
