"""The keeper: one operation after another until the workstation says "finish" or is gone."""

import base64
import contextlib
import os
import platform
import signal
import threading
from typing import Any, Dict, List, Optional

from .child import Child, DetachedRun
from .deployment import deploy, deployed_before, require_room
from .folder import (
    RunFolder,
    difference,
    inside,
    inventory,
    keep_or_remove,
    our_folder,
    remove_run,
    sweep,
)
from .lock import BoardLock, free_lock_of_the_dead
from .store import Store, require_space
from .wire import Gone, Refusal, Wire, of_os_error

_ALIVE_S = 1.0  # the workstation gives up after 12 s of silence
_GET_CHUNK = 3 << 14  # a multiple of three: base64 without padding inside
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_DEPLOYED_TOO = ("cache", "site")  # engines, and wheels that came along
_PLACES = ["/tmp", "/var/tmp", "~", "~/.cache"]


class Keeper:
    """What one connection holds on the board."""

    def __init__(self, wire: Wire, settings: Dict[str, Any]) -> None:
        self._wire, self._root = wire, settings.get("root") or "/"
        self._who, base = settings.get("who"), settings.get("base")
        self._places = [*_PLACES, *filter(None, [base])]
        self._before = inventory(self._places)
        self._ours = our_folder(base)
        self._boot_id = self._read_boot_id()
        self._swept = sweep(self._ours, self._boot_id)
        if self._swept:
            free_lock_of_the_dead()
        self._folder = RunFolder(self._ours, boot_id=self._boot_id, who=self._who)
        self._store = Store(self._folder.path)  # of its own while it has no lock
        self._engines = os.path.join(self._ours, "engines")
        self._site = ""
        self._keep = bool(settings.get("keep"))
        self._lock: Optional[BoardLock] = None
        self._child: Optional[Child] = None
        self._detached: Optional[DetachedRun] = None
        self._stays = False  # the run goes on without the workstation
        self._complete = False  # all uploads are here: the run began
        self._finished = False

    def serve(self) -> None:
        """Answer frames; afterwards nothing of the run is left unless it was detached."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            python = platform.python_version()
            facts = {"run": self._folder.run, "boot_id": self._boot_id, "swept": self._swept}
            self._wire.emit("hello", python=python, **facts)
            while not self._finished:
                self._answer(self._wire.receive())
        except Gone:
            self._wait_detached()
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            self._give_up()

    def _wait_detached(self) -> None:
        try:
            if self._stays and self._child is not None:
                self._child.wait()
        except Gone:  # called off by a signal
            return

    def called_off(self, number: int, frame: Any) -> None:
        """End, as a signal asks; a detached run too."""
        self._stays = False
        raise Gone("called off")

    def _beat(self) -> None:
        while not self._wire.wait_gone(_ALIVE_S):
            self._wire.emit("alive")

    def _answer(self, request: Dict[str, Any]) -> None:
        operation = request.pop("event")
        if operation == "ping":
            return
        try:
            if operation not in _OPERATIONS:
                raise Refusal("unknown", f"expected one of {_OPERATIONS}, got {operation!r:.80}")
            owner = self._store if operation in _OF_THE_STORE else self
            reply: Dict[str, Any] = getattr(owner, operation)(**request) or {}
        except Refusal as refusal:
            reply = refusal.reply()
        except OSError as error:
            reply = of_os_error(error).reply()
        if operation != "data" or not reply.get("ok", True):
            self._wire.emit("reply", **dict({"ok": True}, **reply))

    def _read_boot_id(self) -> Optional[str]:
        try:
            with open(os.path.join(self._root, "proc/sys/kernel/random/boot_id")) as file:
                return file.read().strip()
        except OSError:
            return None

    # Operations. Each returns the fields of its reply.

    def lock(self) -> None:
        """Take the board for this run."""
        self._lock = BoardLock(who=self._who, pid=os.getpid(), run=self._folder.run)
        self._store = Store(self._ours)

    def data(self, body: bytes) -> None:
        """Take a piece of an upload; only the first failure is answered."""
        self._store.write(body)
        self._wire.emit("received", bytes=len(body))

    def place(self, sha256: str, name: str) -> None:
        """Give a stored file a name in the work folder."""
        self._store.place(sha256, inside(self._folder.path, name))

    def unpack(self, sha256: str, name: str) -> None:
        """Unpack a stored zip into a folder of the work folder."""
        folder = self._folder.path
        self._store.unpack(sha256, folder if name == "." else inside(folder, name))

    def site(self, wheels: List[str]) -> Dict[str, Any]:
        """Unpack stored wheels side by side."""
        self._site = self._store.site(wheels)
        return {"path": self._site}

    def room(self, bytes: int) -> None:  # the request's word
        """Say whether an engine of that size can be kept, before it is built for minutes."""
        require_space(self._ours, bytes)

    def agent(self, mode: str, request: Dict[str, Any]) -> None:
        """Start the agent; its events and then an "ended" event follow."""
        self._complete = mode == "run"
        self._folder.note(complete=self._complete)
        places = {"work_dir": self._folder.path, "cache_dir": self._engines, "root": self._root}
        request = dict(request, token=self._wire.token, **places)
        self._child = Child(self._wire, self._folder.path, mode, request)

    def detach(self) -> None:
        """Let the run go on when the workstation is gone, its folder waiting to be fetched."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._folder.note(detached=True)
        self._stays = True

    def attach(self, run: str) -> Dict[str, Any]:
        """Follow a detached run: its events so far, those to come, and its end."""
        self._detached = DetachedRun(self._wire, self._ours, run)
        return {"facts": self._detached.facts}

    def get(self, name: str, most: int) -> Dict[str, Any]:
        """Send a file of the work folder (or of the attached run) as "chunk" events."""
        path = inside(self._run_folder, name)
        if os.path.getsize(path) > most:
            size = os.path.getsize(path)
            raise Refusal("too_big", f"{name} has {size} bytes, at most {most}: measure less long")
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(_GET_CHUNK), b""):
                self._wire.emit("chunk", data=base64.b64encode(chunk).decode("ascii"))
        return {"bytes": os.path.getsize(path)}

    def may_deploy(self, folder: str, names: List[str]) -> None:
        """Say whether deploy() could work, before anything is measured for it."""
        # Beside an earlier deployment, a cache of the app's own is in the way of an engine alone.
        too = () if deployed_before(folder) else _DEPLOYED_TOO
        require_room(folder, [*map(os.path.basename, names), *too])

    def deploy(self, folder: str, names: List[str], report: Dict[str, Any]) -> Dict[str, Any]:
        """Copy parts of the work folder, and the engines, to where an app opens them."""
        sources = {os.path.basename(name): inside(self._run_folder, name) for name in names}
        for name, source in zip(_DEPLOYED_TOO, (self._engines, self._site)):
            if os.path.isdir(source):
                sources[name] = source
        return deploy(folder, sources, report)

    @property
    def _run_folder(self) -> str:
        return self._detached.path if self._detached else self._folder.path

    def finish(self) -> Dict[str, Any]:
        """Give everything up and say what stays."""
        self._finished = True
        if self._detached is not None:
            self._detached.remove()
            with contextlib.suppress(Refusal):  # another run has the board, and the store
                self.lock()
        self._give_up()
        return {"inventory": difference(self._before, inventory(self._places))}

    def _give_up(self) -> None:
        # End the agent, delete the folder, free the lock. When the connection breaks before all
        # was uploaded, what came stays a day, so that the next one goes on from there.
        if self._child is not None and not self._stays:
            self._child.stop()
        self._store.close()
        if not self._stays and os.path.isdir(self._folder.path):
            remove_run(self._ours, self._folder.run)
        if self._lock is not None:
            if self._complete or self._finished:
                keep_or_remove(self._ours, self._keep)
            self._lock.release()
        with contextlib.suppress(OSError):  # something is in it
            os.rmdir(self._ours)


_OF_THE_STORE = ("offer", "restart", "commit")
_OPERATIONS = (
    *_OF_THE_STORE,
    "agent", "attach", "data", "deploy", "detach", "finish", "get", "lock", "may_deploy", "place",
    "room", "site", "unpack",
)  # fmt: skip


def main(settings: Dict[str, Any]) -> None:
    """Keep until the workstation is done or gone.

    Args:
        settings: "token"; and "base", "keep", "root", "who", each of which may be missing.
    """
    os.umask(0o077)
    wire = Wire(settings["token"])
    try:
        keeper = Keeper(wire, settings)
    except Refusal as refusal:
        wire.emit("reply", **refusal.reply())
        return
    for number in _SIGNALS:
        signal.signal(number, keeper.called_off)
    keeper.serve()
