"""What an annotation names, found inside the data folder: pictures by their path, and JSON files.

Tools write where a picture lay on their own machine: `images\\im1.jpg`,
`../../media/upload/4/im1.jpg`, `/data/upload/4/0a1b2c3d-im1.jpg`, a whole URL. Of that the
end counts. Nothing outside of the data folder is ever opened: `..`, drives and hosts are dropped
before a path is looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from fastseg.data.dataset import DataError
from fastseg.data.file_dataset import IMAGE_SUFFIXES, composed, list_files

MAX_JSON_BYTES = 2 << 30  # COCO's largest file has 450 MB, LVIS's 1.1 GB; Python needs some 8 times
_UPLOAD = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the name of an upload
_LOCAL_FILES = "/local-files/?d="  # Label Studio's, of files that it was not given but shown
_DRIVE = re.compile(r"[A-Za-z]:")


def clean_path(named: str) -> str:
    """Return the path that an annotation names as parts that lead downwards, "" for none."""
    if _LOCAL_FILES in named:
        named = unquote(named.partition(_LOCAL_FILES)[2])
    path = unquote(urlsplit(named).path) if "://" in named else named
    path = _DRIVE.sub("", path.replace("\\", "/"), count=1) if _DRIVE.match(path) else path
    parts = path.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..") and "\0" not in part)


class PictureFinder:
    """Finds named pictures of one data folder."""

    def __init__(self, root: Path, folders: Iterable[Path] = ()) -> None:
        """Look in these folders first, then anywhere below root for the name alone."""
        self.root = root
        self.folders = [*folders, root]

    def below(self, named: str) -> Path | None:
        """Return the picture whose whole path is below one of the folders, or None."""
        path = clean_path(named)
        forms = dict.fromkeys((path, composed(path), normalize("NFD", path)))
        files = (folder / form for form in forms for folder in self.folders if form)
        return next((file for file in files if file.is_file()), None)

    def find(self, named: str) -> Path | None:
        """Return that picture, else the one of its name alone; None if there is none or several.

        Tools that write a URL's path alone may have quoted it: that is tried last.
        """
        for path in dict.fromkeys((named, unquote(named))):
            if file := self.below(path):
                return file
            name = composed(PurePosixPath(clean_path(path)).name)
            found = self._by_name.get(name) or self._by_name.get(_UPLOAD.sub("", name, count=1), [])
            if found:
                return found[0] if len(found) == 1 else None
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for file in list_files(self.root, IMAGE_SUFFIXES):
            found.setdefault(composed(file.name), []).append(file)
        return found


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it is missing, too large, or not JSON.
    """
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise DataError(f"{path}: has {size} bytes; at most {max_bytes} are read")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error


def begins_with(path: Path, *words: str, head_bytes: int = 1 << 16) -> bool:
    """Return whether a JSON file's first bytes hold all words in quotes: a look, no parsing."""
    head = peek(path, head_bytes)
    return all(f'"{word}"'.encode() in head for word in words)


def peek(path: Path, count: int, at_end: bool = False) -> bytes:
    """Return a file's first bytes, or its last; none of a folder, a dangling link and the like."""
    try:
        with path.open("rb") as file:
            if at_end:
                file.seek(max(0, path.stat().st_size - count))
            return file.read(count)
    except OSError:
        return b""


def only_table(value: Any, place: str) -> Mapping[str, Any]:
    """Return a JSON object as it is, or raise a DataError."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(value).__name__}")
    return value
