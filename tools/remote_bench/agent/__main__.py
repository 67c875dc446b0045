"""`python3 -m remote_bench.agent probe` or `... run`, with one JSON request as stdin's first line.

Events go to stdout as lines `@TOKEN {json}`. While the connection lives, stdin stays open: its end
ends the run and everything it started, unless the request says "detach".

Exit status: 0 done, 1 failed (an error event and result.json say why), 2 no readable request,
3 called off, 4 the work folder cannot be written.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict

from .board import Board
from .channel import Channel
from .probe import probe
from .process import lead_group
from .supervisor import Supervisor
from .worker_client import Aborted

_HEARTBEAT_S = 1.0  # the workstation gives up after 30 s of silence
_REQUIRED = ("token", "work_dir", "bundle", "runtime_paths", "seconds", "warmup_s", "idle_s",
             "sampler_hz")  # fmt: skip


def main() -> int:
    """Read the request and do it; return the exit status."""
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in ("probe", "run"):
        print("usage: python3 -m remote_bench.agent probe|run < REQUEST", file=sys.stderr)
        return 2
    try:
        request = json.loads(sys.stdin.readline())
        missing = [] if command == "probe" else [key for key in _REQUIRED if key not in request]
        token = str(request["token"])
    except (ValueError, KeyError, TypeError) as error:
        print(f"agent: the first line of stdin is no request: {error!r}", file=sys.stderr)
        return 2
    if missing:
        print(f"agent: the request lacks {missing}", file=sys.stderr)
        return 2
    return _probe(request, token) if command == "probe" else _run(request, token)


def _probe(request: Dict[str, Any], token: str) -> int:
    channel, board = Channel(token), Board(request.get("root") or "/")
    channel.emit("probe", data=probe(board, request.get("engines") or ()))
    channel.close()
    return 0


def _run(request: Dict[str, Any], token: str) -> int:
    leads, abort, channel = lead_group(), threading.Event(), Channel(token)
    _watch(request, abort)
    threading.Thread(target=_beat, args=(channel,), daemon=True).start()
    try:
        good = Supervisor(request, channel, abort).run()
    except Aborted:
        channel.emit("error", kind="aborted", message="the run was called off")
        channel.close()
        if leads:
            os.killpg(0, signal.SIGKILL)  # whatever an engine may have started, and this process
        return 3
    except OSError as error:
        print(f"agent: cannot write the work folder: {error}", file=sys.stderr)
        return 4
    channel.emit("result", path="result.json")
    channel.close()
    return 0 if good else 1


def _watch(request: Dict[str, Any], abort: threading.Event) -> None:
    def called_off(number: int, frame: Any) -> None:
        abort.set()

    detach = bool(request.get("detach"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN if detach else called_off)
    signal.signal(signal.SIGTERM, called_off)
    signal.signal(signal.SIGINT, called_off)
    if not detach:
        threading.Thread(target=_wait_for_end, args=(abort,), daemon=True).start()


def _wait_for_end(abort: threading.Event) -> None:
    while os.read(0, 4096):
        continue
    abort.set()


def _beat(channel: Channel) -> None:
    while True:
        channel.emit("heartbeat")
        time.sleep(_HEARTBEAT_S)


if __name__ == "__main__":
    sys.exit(main())
