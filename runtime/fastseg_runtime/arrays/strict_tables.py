"""Tables (of TOML, of JSON) read into dataclasses: every key is known and typed, or it is an error.

A record goes out by dataclasses.asdict and comes back equal. What a field may be: text, numbers,
true or false, Path, Any, Optional, Literal, other dataclasses, and tuples, lists, dicts of these.
A key that is no name in Python ("p99.9") stands in its field's metadata, as "key". Arguments that
are counts or limits are held to the same.
"""

import dataclasses
import difflib
import operator
import reprlib
import sys
import types
import typing
from contextlib import suppress
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple, Type, TypeVar, Union

T = TypeVar("T")
_UNIONS = (Union, getattr(types, "UnionType", Union))  # the second is `X | None`, from Python 3.10
_WORDS = {Mapping: "a table", (list, tuple): "list", (int, float): "int or float"}
_LONGEST = 80  # characters of what came, in a message
_FLOATS = (float, Optional[float])
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _LONGEST


class TableError(ValueError):
    """A table does not fit the record that it is for.

    Attributes:
        path: where in the table, such as ".files[0].bytes"; "" for all of it.
        problem: what is wrong there.
    """

    def __init__(self, place: str, path: str, problem: str) -> None:
        super().__init__(": ".join(filter(None, (place, path.lstrip("."), problem))))
        self.path, self.problem = path, problem


def from_table(record: Type[T], table: Any, place: str, ignore_unknown: bool = False) -> T:
    """Make a dataclass of a table.

    Args:
        record: the dataclass; nested ones come from nested tables.
        table: what a parser of TOML or JSON returned.
        place: where it is from, for errors: "board.toml", "job.json", "options".
        ignore_unknown: leave out keys that the record has not, as a newer writer may add some.

    Raises:
        TableError: a key that is unknown, missing or of the wrong type (a bool is no number, an
            int is a float too, a float is finite), or a ValueError of the dataclass itself.
    """
    made: T = _Reader(place, ignore_unknown).record(record, table, "")
    return made


@lru_cache(maxsize=None)
def _fields(record: Type[Any]) -> Dict[str, Tuple["dataclasses.Field[Any]", Any]]:
    """Return the field of each key, and its type."""
    hints = typing.get_type_hints(record)
    fields = [field for field in dataclasses.fields(record) if field.init]
    return {field.metadata.get("key", field.name): (field, hints[field.name]) for field in fields}


class _Reader:
    def __init__(self, place: str, ignore_unknown: bool) -> None:
        self._place, self._ignore_unknown = place, ignore_unknown

    def record(self, record: Any, table: Any, path: str) -> Any:
        fields = _fields(record)
        self._check(Mapping, table, path)
        unknown = [key for key in table if key not in fields]
        if unknown and not self._ignore_unknown:
            raise TableError(self._place, path, _describe_unknown(unknown, sorted(fields)))
        values = {
            field.name: self.value(hint, table[key], f"{path}.{key}")
            for key, (field, hint) in fields.items()
            if key in table
        }
        missing = [
            key
            for key, (field, _) in fields.items()
            if field.name not in values
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise TableError(self._place, path, f"missing keys {missing}")
        try:
            return record(**values)
        except ValueError as error:  # what the record itself refuses
            raise TableError(self._place, path, str(error)) from error

    def value(self, hint: Any, value: Any, path: str) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return value
        if dataclasses.is_dataclass(hint):
            return self.record(hint, value, path)
        if origin in _UNIONS:
            return self._union(arguments, value, path)
        if origin in (tuple, list):
            return self._sequence(origin, arguments, value, path)
        if origin is dict:
            return self._mapping(arguments, value, path)
        if origin is Literal:
            if not any(type(value) is type(choice) and value == choice for choice in arguments):
                self._refuse(f"one of {', '.join(map(repr, arguments))}", value, path)
            return value
        if hint is Path and isinstance(value, str):  # as json.dumps(..., default=str) has it
            return Path(value)
        self._check((int, float) if hint is float else hint, value, path)
        if hint is float and not abs(value) <= sys.float_info.max:
            self._refuse("a finite number", value, path)
        return float(value) if hint is float else value

    def _union(self, kinds: Tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        *others, last = (kind for kind in kinds if kind is not type(None))
        for kind in others:
            try:
                return self.value(kind, value, path)
            except TableError:
                continue
        return self.value(last, value, path)

    def _sequence(self, kind: Any, items: Tuple[Any, ...], value: Any, path: str) -> Any:
        self._check((list, tuple), value, path)
        if kind is list or items[-1:] == (...,):
            if items[0] in _FLOATS and set(map(type, value)) == {float} and isfinite(sum(value)):
                return kind(value)  # at once: a run of an hour has a column of 360,000 times
            items = items[:1] * len(value)
        if len(items) != len(value):
            self._refuse(f"{len(items)} values", value, path)
        pairs = enumerate(zip(items, value))
        return kind(self.value(item, part, f"{path}[{index}]") for index, (item, part) in pairs)

    def _mapping(self, kinds: Tuple[Any, ...], value: Any, path: str) -> Dict[Any, Any]:
        self._check(Mapping, value, path)
        made = {}
        for key, item in value.items():
            name = str(key) if str(key).isprintable() else _shown(key)
            here = f"{path}.{name:.{_LONGEST}}"
            made[self.value(kinds[0], key, here)] = self.value(kinds[1], item, here)
        return made

    def _check(self, kinds: Any, value: Any, path: str) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            self._refuse(_WORDS.get(kinds) or kinds.__name__, value, path)

    def _refuse(self, expected: str, value: Any, path: str) -> None:
        raise TableError(self._place, path, f"expected {expected}, got {_shown(value)}")


def _describe_unknown(unknown: List[Any], known: List[str]) -> str:
    near = difflib.get_close_matches(str(unknown[0])[:_LONGEST], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown keys {_shown(sorted(map(str, unknown)))}; valid keys are {known}{hint}"


def _shown(value: Any) -> str:
    try:
        return _shorten.repr(value)
    except ValueError:  # Python writes no int of more than 4300 digits
        return "a number too long to show"


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number; ValueError where it is none, or below the least."""
    try:
        count = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise ValueError(f"{name} is {value!r}; expected {least} or more, a whole number")
    return count


def check_above_0(name: str, value: Any, unit: str) -> None:
    """Raise ValueError for what is neither None nor a number above 0."""
    with suppress(TypeError, ValueError):  # an array's, of several
        if value is None or value > 0:
            return
    raise ValueError(f"{name} is {value!r}; expected {unit} above 0")
