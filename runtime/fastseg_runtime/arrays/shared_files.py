"""Files that several processes share: their folder, locks, and writing whole or not at all.

A lock holds between threads too, and the system frees it when its holder dies.
"""

import os
import stat
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Callable, Iterator

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[Any]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[Any]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


POLL_S = 0.2


def user_cache() -> Path:
    """Return the user's folder for what can be made again."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    # A service without a home folder: somewhere of its own, lost at the next boot.
    return base if base.is_absolute() else Path(tempfile.gettempdir()) / "cache"


def cache_folder() -> Path:
    """Return where fastseg keeps what it can make again."""
    named = os.environ.get("FASTSEG_CACHE")
    return Path(named) if named else user_cache() / "fastseg"


def is_private(folder: Path) -> bool:
    """Return whether only this user, or root, can have put files into a folder.

    Raises:
        OSError: it is not there.
    """
    if sys.platform == "win32":
        return True  # profiles of Windows are private by default
    status = folder.stat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (0, os.getuid()) and not others_write


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file; the file stays, its content means nothing.

    Args:
        path: created if it is not there.
        on_wait: called once if somebody else holds the lock.

    Raises:
        OSError: the file cannot be opened or locked here.
    """
    with path.open("ab") as file:
        if not _try_lock(file):
            on_wait()
            while not _try_lock(file):
                time.sleep(POLL_S)
        yield  # closing the file frees the lock


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file; what is there in the end takes the file's name.

    Where the block fails, nothing of it stays and an old file stays as it was. The name is random,
    so that two writers do not write into one file, and short, since the file's may be as long as
    the disk allows. The folder is made.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
