"""Which kind of data lies in a folder: each kind's own opener says whether it is its own.

An opener that is made by `recognised_by(looks_like)` is asked; `looks_like(path)` takes the folder
or the file that a user names and returns a few words on what it saw there, or "" for "not mine". It
lists folders and looks into few files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from fastseg.data.dataset import AmbiguousDataError, DataError, Dataset

Open = Callable[[str, str], Dataset]
LooksLike = Callable[[Path], str]
_SHOWN = 8  # names of what lies in a folder that nobody knows


@dataclass(frozen=True)
class Opener:
    """Opens one kind of data: called with what follows the colon of the spec, and the split."""

    open: Open
    looks_like: LooksLike
    general: bool = False  # gives way to kinds that know their data by more than folders

    def __call__(self, location: str, split: str) -> Dataset:
        """Open one split."""
        return self.open(location, split)


def recognised_by(looks_like: LooksLike, general: bool = False) -> Callable[[Open], Opener]:
    """Return a decorator for an opener whose data are recognised without naming the kind."""
    return lambda open_: Opener(open_, looks_like, general)


@dataclass(frozen=True)
class Recognised:
    """What a path holds."""

    kind: str
    path: str
    words: str
    general: bool = False

    @property
    def spec(self) -> str:
        """KIND:PATH."""
        return f"{self.kind}:{self.path}"

    def __str__(self) -> str:
        """Return a line for the user."""
        return f"{self.path} is recognised as {self.spec}: {self.words}"


def load_opener(target: str) -> Open:
    """Return what "module:function" names."""
    module, _, function = target.partition(":")
    return cast(Open, getattr(import_module(module), function))


def recognise(path: Path, openers: Mapping[str, str]) -> Recognised:
    """Return the one kind that a folder or a file is of.

    Args:
        path: what the user named.
        openers: "module:function" by kind.

    Raises:
        DataError: no kind knows it, or several do; the message says what to write.
    """
    found = list(_candidates(path, openers))
    if len(found) == 1:
        return found[0]
    if found:
        choices = "; ".join(f"{one.spec} ({one.words})" for one in found)
        raise AmbiguousDataError(
            f"{path}: looks like {len(found)} kinds of data; write one of {choices}"
        )
    kinds = ", ".join(sorted(openers))
    raise DataError(
        f"{path}: no data set that is recognised; it holds {_content(path)}. Write KIND:PATH with "
        f"one of {kinds}; docs/data.md shows what each looks like"
    )


def hint(path: Path, kind: str, openers: Mapping[str, str]) -> str:
    """Return what to write if data that `kind` cannot open look like another kind, else ""."""
    found = list(_candidates(path, openers))
    if not found or kind in {one.kind for one in found}:
        return ""
    return f". It looks like {found[0].words}: write {found[0].spec}"


def _candidates(path: Path, openers: Mapping[str, str]) -> Iterator[Recognised]:
    found = []
    for kind, target in openers.items():
        opener = load_opener(target)
        if not isinstance(opener, Opener):
            continue
        with contextlib.suppress(DataError, OSError):  # what cannot be looked at is not it
            if words := opener.looks_like(path):
                found.append(Recognised(kind, str(path), words, opener.general))
    special = [one for one in found if not one.general]
    yield from special or found


def _content(path: Path) -> str:
    if path.is_file():
        return f"{path.stat().st_size} bytes"
    names = sorted(f"{f.name}/" if f.is_dir() else f.name for f in path.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
