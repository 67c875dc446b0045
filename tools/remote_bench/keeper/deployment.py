"""Leaves what was measured where an app opens it: runtime, bundle, engines, and the report."""

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
from typing import Any, Dict, Iterable, Set

from .store import hash_file
from .wire import Refusal

RECORD = "deployed.json"
_CLAIM = ".claim.json"  # the earlier record with the new names too
_PART = ".part"  # of a copy
_STALE = re.compile(r"\.deploy(ed)?-[a-z0-9_]{8}")  # as mkdtemp names them


def require_room(folder: str, names: Iterable[str]) -> None:
    """Raise a Refusal where the names are taken or the folder cannot be written; change nothing."""
    folder = _real(folder)
    others = {*names, RECORD} - deployed_before(folder)
    taken = sorted(name for name in others if _is_taken(os.path.join(folder, name)))
    if RECORD in taken:
        why = f"its {RECORD} cannot be read; remove it, or choose another folder"
        raise Refusal("exists", f"{folder} holds {taken} of somebody else, or {why}")
    if taken:
        raise Refusal("exists", f"{folder} holds {taken} of somebody else; choose another folder")
    there = folder
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise Refusal("denied", f"{folder} cannot be made or written; choose another folder")


def deployed_before(folder: str) -> Set[str]:
    """Return the names that the record of an earlier deployment has, and its own."""
    try:
        record = _read_record(_real(folder))
        tops = {path.partition("/")[0] for path in record["files"]}
        return {*record.get("names", ()), *tops, RECORD}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _read_record(folder: str) -> Dict[str, Any]:
    with open(os.path.join(folder, RECORD)) as file:
        record: Dict[str, Any] = json.load(file)
        return record


def _is_taken(path: str) -> bool:
    try:
        return os.path.lexists(path) and not (os.path.isdir(path) and os.listdir(path) == [])
    except OSError:  # who may not look does not know
        return True


def _real(folder: str) -> str:
    return os.path.realpath(os.path.expanduser(folder))


def deploy(folder: str, sources: Dict[str, str], report: Dict[str, Any]) -> Dict[str, Any]:
    """Copy files and folders into `folder` and write deployed.json; each appears as a whole.

    Args:
        folder: of the user's choice; made where it is missing.
        sources: name in the folder -> path of what is copied.
        report: of the measurement; goes into the record with the hash of every file.

    Returns:
        {"folder", "files": {path in the folder: SHA-256}}.

    Raises:
        Refusal: a name is taken, and not by an earlier deployment; or the folder cannot be written.
    """
    require_room(folder, sources)
    folder = _real(folder)
    _make(folder)
    ours = deployed_before(folder)
    _sweep(folder, {*ours, *sources, RECORD, _CLAIM, _PART})
    half = tempfile.mkdtemp(prefix=".deploy-", dir=folder)
    try:
        for name, source in sources.items():
            _copy(source, os.path.join(half, name))
        files = _hashes(half)
        # What an earlier one brought and this one does not stays, and stays ours.
        old = {name for name in ours if _is_taken(os.path.join(folder, name))}
        record = {"files": files, "report": report, "names": sorted({*sources, *old})}
        before = _read_record(folder) if ours else {"files": {}, "names": []}
        _write(os.path.join(half, _CLAIM), dict(before, names=record["names"]))
        _write(os.path.join(half, RECORD), record)
        for name in os.listdir(half):
            _let_others_read(os.path.join(half, name))
        _swap(sources, half, folder)
        if "names" not in before and folder != _real("~"):
            _let_others_in(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return {"folder": folder, "files": files}


def _sweep(folder: str, ours: Set[str]) -> None:
    # What a deployment that was killed left; a folder of that name with more in it is the user's.
    for name in filter(_STALE.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # it may be another user's
            if not os.path.islink(path) and ours.issuperset(os.listdir(path)):
                shutil.rmtree(path, ignore_errors=True)


def _write(path: str, record: Dict[str, Any]) -> None:
    with open(path, "w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())  # else a power cut can leave it empty under its name


def _make(folder: str) -> None:
    before = os.umask(0o022)  # ours is 077, and an app may run as somebody else
    try:
        os.makedirs(folder, exist_ok=True)
    finally:
        os.umask(before)


def _let_others_in(folder: str) -> None:
    # The version without names made it, and what led to it, with our umask.
    if stat.S_IMODE(os.stat(folder).st_mode) == 0o700:
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o755)


def _let_others_read(path: str) -> None:
    # chmod -R u+rwX,go+rX
    inside = [os.path.join(at, n) for at, folders, files in os.walk(path) for n in folders + files]
    for each in (path, *inside):
        mode = os.stat(each).st_mode
        more = 0o755 if os.path.isdir(each) or mode & 0o100 else 0o644
        with contextlib.suppress(OSError):  # of a file system without modes
            os.chmod(each, stat.S_IMODE(mode) | more)


def _copy(source: str, target: str) -> None:
    if os.path.isdir(source):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.lock"))
    else:
        shutil.copyfile(source, target)


def _swap(names: Iterable[str], half: str, folder: str) -> None:
    # A file is there at any time, a folder but for two renames. First the record claims all names,
    # so that they are ours wherever it ends; on an error all old ones go back.
    old = tempfile.mkdtemp(prefix=".deployed-", dir=folder)
    pairs = [(_CLAIM, RECORD), *((name, name) for name in names), (RECORD, RECORD)]
    moves = [
        (os.path.join(half, new), os.path.join(folder, name), os.path.join(old, new))
        for new, name in pairs
    ]
    try:
        for new, target, kept in moves:
            _keep(new, target, kept)
            os.replace(new, target)
    except BaseException:
        for new, target, kept in reversed(moves):
            _put_back(new, target, kept)
        shutil.rmtree(old, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _keep(new: str, target: str, kept: str) -> None:
    if not os.path.lexists(target):
        return
    if _is_folder(target) or _is_folder(new):
        os.rename(target, kept)
        return
    try:
        os.link(target, kept, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without links
        part = os.path.join(os.path.dirname(kept), _PART)
        shutil.copy2(target, part, follow_symlinks=False)
        os.rename(part, kept)


def _put_back(new: str, target: str, kept: str) -> None:
    # What was done is seen in what is there: an error or a signal may have come anywhere.
    has_old = os.path.lexists(kept)
    replaces = has_old and not _is_folder(kept) and not _is_folder(target)
    if not replaces and not os.path.lexists(new) and os.path.lexists(target):
        os.rename(target, new)
    if has_old:
        os.replace(kept, target)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _hashes(folder: str) -> Dict[str, str]:
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(path, folder): hash_file(path) for path in sorted(paths)}
