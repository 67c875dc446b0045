"""Tables (of TOML, of JSON) read into dataclasses: every key is known and typed, or it is an error.

A record goes out by dataclasses.asdict and comes back equal. What a field may be: text, numbers,
true or false, Path, Any, Optional, Literal, other dataclasses, and tuples, lists, dicts of these.
"""

import dataclasses
import difflib
import math
import reprlib
import types
from functools import lru_cache
from pathlib import Path
from typing import (
    Any,
    Dict,
    List,
    Literal,
    Mapping,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")
_UNIONS = (Union, getattr(types, "UnionType", Union))  # the second is `X | None`, from Python 3.10
_LONGEST = 80  # characters of what came, in a message
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
def _fields(record: Type[Any]) -> Dict[str, Tuple[Any, bool]]:
    """Return the type of each key, and whether a table must have it."""
    hints, missing = get_type_hints(record), dataclasses.MISSING
    return {
        entry.name: (
            hints[entry.name],
            entry.default is missing and entry.default_factory is missing,
        )
        for entry in dataclasses.fields(record)
        if entry.init
    }


class _Reader:
    def __init__(self, place: str, ignore_unknown: bool) -> None:
        self._place, self._ignore_unknown = place, ignore_unknown

    def record(self, record: Any, table: Any, path: str) -> Any:
        fields = _fields(record)
        self._check_type(table, Mapping, path)
        unknown = [key for key in table if key not in fields]
        if unknown and not self._ignore_unknown:
            raise TableError(self._place, path, _describe_unknown(unknown, list(fields)))
        values = {
            key: self.value(hint, table[key], f"{path}.{key}")
            for key, (hint, _) in fields.items()
            if key in table
        }
        missing = [key for key, (_, required) in fields.items() if required and key not in values]
        if missing:
            raise TableError(self._place, path, f"missing keys {missing}")
        try:
            return record(**values)
        except ValueError as error:  # what the record itself refuses
            raise TableError(self._place, path, str(error)) from error

    def value(self, hint: Any, value: Any, path: str) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Any:
            return value
        if origin in _UNIONS:
            return self._union(arguments, value, path)
        if origin is Literal:
            if not any(type(value) is type(choice) and value == choice for choice in arguments):
                self._refuse(path, f"one of {', '.join(map(repr, arguments))}", value)
            return value
        if dataclasses.is_dataclass(hint):
            return self.record(hint, value, path)
        if origin in (tuple, list):
            return self._sequence(origin, arguments, value, path)
        if origin is dict:
            return self._mapping(arguments, value, path)
        if hint is float:
            return self._float(value, path)
        if hint is Path:  # a text in JSON, see json.dumps(..., default=str)
            self._check_type(value, (str, Path), path)
            return Path(value)
        self._check_type(value, hint, path)
        return value

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

    def _mapping(self, kinds: Tuple[Any, ...], value: Any, path: str) -> Dict[Any, Any]:
        self._check_type(value, Mapping, path)
        made = {}
        for key, item in value.items():
            name = str(key) if str(key).isprintable() else _shown(key)
            here = f"{path}.{name:.{_LONGEST}}"
            made[self.value(kinds[0], key, here)] = self.value(kinds[1], item, here)
        return made

    def _sequence(self, kind: Any, items: Tuple[Any, ...], value: Any, path: str) -> Any:
        self._check_type(value, (list, tuple), path)
        if kind is list or items[-1:] == (...,):
            items = items[:1] * len(value)
        if len(items) != len(value):
            self._refuse(path, f"{len(items)} values", value)
        pairs = enumerate(zip(items, value))
        return kind(self.value(item, part, f"{path}[{index}]") for index, (item, part) in pairs)

    def _float(self, value: Any, path: str) -> float:
        self._check_type(value, (int, float), path)
        try:
            number = float(value)
        except OverflowError:  # an int of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            self._refuse(path, "a finite number", value)
        return number

    def _check_type(self, value: Any, kinds: Any, path: str) -> None:
        if isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool)):
            return
        names: Dict[Any, str] = {Mapping: "a table", (int, float): "int or float"}
        names.update({(list, tuple): "list", (str, Path): "str"})
        self._refuse(path, names.get(kinds) or kinds.__name__, value)

    def _refuse(self, path: str, expected: str, value: Any) -> None:
        raise TableError(self._place, path, f"expected {expected}, got {_shown(value)}")


def _describe_unknown(unknown: List[Any], known: List[str]) -> str:
    first = str(unknown[0])[:_LONGEST]
    near = difflib.get_close_matches(first, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown keys {_shown(sorted(map(str, unknown)))}; valid keys are {sorted(known)}{hint}"


def _shown(value: Any) -> str:
    try:
        return _shorten.repr(value)
    except ValueError:  # Python writes no int of more than 4300 digits
        return "a number too long to show"
