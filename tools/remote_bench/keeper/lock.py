"""One measurement a board: a lock that all users of it share.

It is an flock on a fixed file, so the kernel drops it when its holder dies; a live one is never
broken. The file itself goes away with the lock.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from typing import Any, Optional

from .wire import Refusal

NAME = "remote_bench.lock"
_IN_MEMORY = ("/dev/shm", "/run/lock")  # where all users can write, though every disk is read-only


class BoardLock:
    """Held from construction to release()."""

    def __init__(self, **holder: Any) -> None:
        self._path = os.path.join(_shared_folder(), NAME)
        self._file: Optional[int] = None
        while self._file is None:
            self._file = self._try()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(holder).encode("ascii"), 0)

    def _try(self) -> Optional[int]:
        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 4096, 0).decode("utf-8", "replace")
            os.close(file)
            whose = f"another run holds this board: {holder}"
            raise Refusal("busy", f"{whose}; wait for its end, or ask whose it is") from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(file)):
                return file
        os.close(file)  # its last holder deleted it while we waited
        return None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            pass
        try:
            file = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return self._open()
        os.fchmod(file, 0o666)  # other users of the board must be able to take it
        return file

    def release(self) -> None:
        """Give the board to the next one."""
        if self._file is None:
            return
        try:
            os.unlink(self._path)  # before the unlock, so that nobody locks a deleted file
        except OSError:  # another user's file in a sticky folder: it stays, empty and free
            os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = None


def free_lock_of_the_dead() -> None:
    """Delete the file of a lock whose holder died; a live one is left alone."""
    with contextlib.suppress(Refusal, OSError):
        BoardLock().release()


def _shared_folder() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        for folder in _IN_MEMORY:
            if os.access(folder, os.W_OK):
                return folder
        places = f"no place for the board's lock: {error.strerror}, {' or '.join(_IN_MEMORY)}"
        fix = "export TMPDIR, a folder of all users, in the login shell's start-up file"
        raise Refusal("no_folder", f"{places}; {fix}") from error
