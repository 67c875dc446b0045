"""Leaves what was measured where an app opens it: runtime, bundle, engines, and the report."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from typing import Any, Dict, Iterable, Set

from .store import hash_file
from .wire import Refusal

RECORD = "deployed.json"


def require_room(folder: str, names: Iterable[str]) -> None:
    """Raise a Refusal where the names are taken or the folder cannot be written; change nothing."""
    folder = _real(folder)
    others = {*names, RECORD} - _deployed_before(folder)
    taken = sorted(name for name in others if _is_taken(os.path.join(folder, name)))
    if taken:
        raise Refusal("exists", f"{folder} holds {taken} of somebody else; choose another folder")
    there = folder
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise Refusal("denied", f"{folder} cannot be made or written; choose another folder")


def _deployed_before(folder: str) -> Set[str]:
    # The names that the record of an earlier deployment has, and its own.
    try:
        with open(os.path.join(folder, RECORD)) as file:
            record = json.load(file)
        tops = {path.partition("/")[0] for path in record["files"]}
        return {*record.get("names", ()), *tops, RECORD}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _is_taken(path: str) -> bool:
    return os.path.lexists(path) and not (os.path.isdir(path) and os.listdir(path) == [])


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
    half = tempfile.mkdtemp(prefix=".deploy-", dir=folder)
    try:
        for name, source in sources.items():
            _copy(source, os.path.join(half, name))
        files = _hashes(half)
        # What an earlier one brought and this one does not stays, and stays ours.
        old = {name for name in _deployed_before(folder) if _is_taken(os.path.join(folder, name))}
        record = {"files": files, "report": report, "names": sorted({*sources, *old})}
        with open(os.path.join(half, RECORD), "w") as file:
            json.dump(record, file, indent=1)
        for name in os.listdir(half):
            _let_others_read(os.path.join(half, name))
        _swap([*sources, RECORD], half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return {"folder": folder, "files": files}


def _make(folder: str) -> None:
    before = os.umask(0o022)  # ours is 077, and an app may run as somebody else
    try:
        os.makedirs(folder, exist_ok=True)
    finally:
        os.umask(before)


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
    # The old ones are deleted when all new ones are there; before that, all go back.
    old, moves = tempfile.mkdtemp(prefix=".deployed-", dir=folder), []
    there = [name for name in names if os.path.lexists(os.path.join(folder, name))]
    moves += [(os.path.join(folder, name), os.path.join(old, name)) for name in there]
    moves += [(os.path.join(half, name), os.path.join(folder, name)) for name in names]
    done = []
    try:
        for source, target in moves:
            os.rename(source, target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            os.rename(target, source)
        os.rmdir(old)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _hashes(folder: str) -> Dict[str, str]:
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(path, folder): hash_file(path) for path in sorted(paths)}
