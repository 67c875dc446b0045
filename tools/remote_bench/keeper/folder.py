"""Our folder on the board, and the run folders in it.

`BASE/remote_bench-UID/` belongs to one user: `run-*/` is one run each, `store/`, `sites/` and
`engines/` are kept between runs only when the user says so. A run folder is deleted only if it
carries our marker, is no link, is ours, and lies directly in our folder. An inventory of the places
where we write, before and after, lets a report say what stayed.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from typing import Any, Dict, List, Optional, Set

from .wire import Refusal

MARKER = "marker.json"
KEPT = ("store", "sites", "engines")
_UNMARKED_S = 600.0  # a run folder without a marker is being made, unless it is older
_FETCH_S = 7 * 86400.0  # a detached run waits so long for --resume
_PART_S = 86400.0  # an upload that was cut waits so long for its rest
_KEEP = "keep"  # a file that says so


def our_folder(wanted: Optional[str]) -> str:
    """Return our folder in the first place that can hold it; make it, mode 700.

    Args:
        wanted: the base that the user chose; None tries TMPDIR, /var/tmp, /tmp and home. /var/tmp
            comes before /tmp, which may be memory that the measured network would miss.

    Raises:
        Refusal: no place works; the message says why, one by one.
    """
    bases = [wanted] if wanted else [os.environ.get("TMPDIR"), "/var/tmp", "/tmp", "~"]
    reasons = []
    for base in filter(None, bases):
        folder = os.path.join(
            os.path.realpath(os.path.expanduser(_path(base))), f"remote_bench-{os.geteuid()}"
        )
        try:
            _make_private(folder)
            return folder
        except OSError as error:
            reasons.append(f"{base}: {error.strerror or error}")
    raise Refusal(
        "no_folder",
        "no place for a work folder: " + "; ".join(reasons) + ". Choose another with --folder",
    )


def _path(text: str) -> str:
    # Python 3.6 in the C locale has ASCII paths; the bytes that the user meant are UTF-8.
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _make_private(folder: str) -> None:
    if os.statvfs(os.path.dirname(folder)).f_flag & os.ST_NOEXEC:
        raise OSError("mounted noexec, so an engine's libraries cannot be loaded from it")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"{folder} is somebody else's, or a link")
    if found.st_mode & 0o077:
        raise OSError(f"{folder} is open to others; expected mode 700")
    os.rmdir(tempfile.mkdtemp(prefix="try-", dir=folder))  # writable, and not full


class RunFolder:
    """One run's folder, alive as long as this process holds the lock on its marker."""

    def __init__(self, ours: str, **facts: Any) -> None:
        self.path = tempfile.mkdtemp(prefix="run-", dir=ours)
        self.run = os.path.basename(self.path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._marker = os.open(os.path.join(self.path, MARKER), flags)
        fcntl.flock(self._marker, fcntl.LOCK_EX)
        self._facts: Dict[str, Any] = {}
        self.note(run=self.run, pid=os.getpid(), started_s=time.time(), **facts)

    def note(self, **facts: Any) -> None:
        """Add facts to the marker."""
        self._facts.update(facts)
        text = json.dumps(self._facts).encode("ascii")
        os.pwrite(self._marker, text.ljust(1024), 0)  # one write: never half a marker


def inside(folder: str, name: str) -> str:
    """Return folder/name; a Refusal where that is not below the folder, links resolved."""
    path = os.path.join(folder, name)
    parent = os.path.realpath(os.path.dirname(path))
    if os.path.isabs(name) or "\0" in name or os.path.basename(name) in ("", ".", ".."):
        raise Refusal("name", f"expected a relative file name, got {name!r}")
    if parent != folder and not parent.startswith(folder + os.sep):
        raise Refusal("name", f"{name!r} leaves the work folder")
    return path


def read_marker(path: str) -> Optional[Dict[str, Any]]:
    """Return the facts of a run folder; None where it has no readable marker."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW
        with open(os.path.join(path, MARKER), "rb", opener=lambda p, _: os.open(p, flags)) as file:
            facts = json.loads(file.read(4096).decode("utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def is_alive(path: str) -> bool:
    """Tell whether a process holds the run folder: the kernel drops its lock when it dies."""
    try:
        with open(os.path.join(path, MARKER), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held
        return True
    return False


def remove_run(ours: str, run: str) -> None:
    """Delete one run folder of ours; anything else is a Refusal."""
    path = os.path.join(ours, run)
    found = os.lstat(path)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not run.startswith("run-") or os.sep in run or not is_ours or read_marker(path) is None:
        raise Refusal("not_ours", f"{path} is no run folder of ours; it stays")
    shutil.rmtree(path)


def keep_or_remove(ours: str, keep: bool) -> None:
    """Mark what is between runs as wanted, or delete it."""
    if keep:
        with open(os.path.join(ours, _KEEP), "w"):
            return
    for name in KEPT:
        shutil.rmtree(os.path.join(ours, name), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(ours, _KEEP))


def sweep(ours: str, boot_id: Optional[str] = None) -> List[str]:
    """Delete run folders that a dead process left, and old uploads; return their names.

    A finished detached run waits for its fetcher first.

    Args:
        ours: our folder.
        boot_id: of the running system; a run of this boot is no older than the boot, whatever the
            wall clock says, which jumps by years on a board without a battery.
    """
    runs = [path for path in _paths(ours) if os.path.basename(path).startswith("run-")]
    stale = [path for path in runs if _is_stale_run(path, boot_id)]
    if not os.path.exists(os.path.join(ours, _KEEP)):
        stored = _paths(os.path.join(ours, "store"))
        stale += [path for path in stored if _age_s(path) > _PART_S]
        if stale == runs and any((read_marker(run) or {}).get("complete") for run in runs):
            stale += [path for path in _paths(ours) if os.path.basename(path) in KEPT]
    for path in stale:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.exists(path):
            os.unlink(path)
    return [os.path.basename(path) for path in stale]


def _paths(folder: str) -> List[str]:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names]


def _age_s(path: str) -> float:
    return time.time() - os.lstat(path).st_mtime


def _is_stale_run(path: str, boot_id: Optional[str]) -> bool:
    if not stat.S_ISDIR(os.lstat(path).st_mode) or is_alive(path):
        return False
    marker = read_marker(path)
    if marker is None:
        return _age_s(path) > _UNMARKED_S
    if not marker.get("detached"):
        return True
    is_of_this_boot = boot_id is not None and marker.get("boot_id") == boot_id
    longest_s = time.monotonic() if is_of_this_boot else float("inf")
    return min(_age_s(path), longest_s) > _FETCH_S


def inventory(places: List[str]) -> List[str]:
    """Return the paths directly in some folders that belong to this user, sorted."""
    found: Set[str] = set()
    for place in {os.path.realpath(os.path.expanduser(place)) for place in places}:
        with contextlib.suppress(OSError):
            for path in _paths(place):
                with contextlib.suppress(OSError):  # gone meanwhile
                    found.update([path] if os.lstat(path).st_uid == os.geteuid() else [])
    return sorted(found)


def difference(before: List[str], after: List[str]) -> Dict[str, object]:
    """Return how many paths there were and are, and which came and went."""
    return {
        "before": len(before),
        "after": len(after),
        "appeared": sorted(set(after) - set(before))[:100],
        "disappeared": sorted(set(before) - set(after))[:100],
    }
