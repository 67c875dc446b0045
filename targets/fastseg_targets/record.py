"""Strict TOML tables: every key is known, typed and used, or the file is an error."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class TableError(ValueError):
    """A TOML file does not fit the record it describes."""


def from_table(record: type[T], table: Mapping[str, Any], place: str) -> T:
    """Make a frozen dataclass of a TOML table; nested dataclasses come from nested tables.

    Args:
        record: the dataclass.
        table: what tomllib returned.
        place: the file (and key) that an error names.

    Raises:
        TableError: a key that is unknown, missing or of the wrong type.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(record)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(fields)):
        raise TableError(f"{place}: unknown keys {unknown}; valid keys are {sorted(fields)}")
    hints = typing.get_type_hints(record)
    values = {key: _value(hints[key], table[key], f"{place}: {key}") for key in table}
    missing = [name for name, entry in fields.items() if name not in values and _required(entry)]
    if missing:
        raise TableError(f"{place}: missing keys {missing}")
    return record(**values)


def _required(entry: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return entry.default is missing and entry.default_factory is missing


def _value(hint: Any, value: Any, place: str) -> Any:
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):  # "float | None": a key that is there has a value
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint):
        return from_table(hint, _checked(value, dict, place), place)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        items = enumerate(_checked(value, list, place))
        return tuple(_value(arguments[0], item, f"{place}[{i}]") for i, item in items)
    if origin is dict:
        table = _checked(value, dict, place)
        return {key: _value(arguments[1], item, f"{place}.{key}") for key, item in table.items()}
    if hint is float:
        return float(_checked(value, (int, float), place))
    return _checked(value, hint, place)


def _checked(value: Any, kind: Any, place: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise TableError(f"{place}: expected {names}, got {value!r:.80}")
    return value
