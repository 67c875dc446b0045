"""JSON that comes from elsewhere, checked before it is used: a small part of JSON Schema.

Known keywords: type, properties, required, additionalProperties, items, prefixItems, enum,
minItems, maxItems, maxLength, minimum, maximum. The two published schemas lie beside this file:
result.schema.json is what an agent writes on the board, report.schema.json what remote_bench
prints.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any, NoReturn

MOST_BYTES = 512 * 1024 * 1024
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class SchemaError(ValueError):
    """A document does not have the form it should have."""


def parse(text: str | bytes, schema_name: str) -> dict[str, Any]:
    """Parse a document and check it.

    Args:
        text: JSON; NaN and infinities are refused.
        schema_name: "result" or "report".

    Raises:
        SchemaError: too large, no JSON, or not of that form; it names the place.
    """
    if len(text) > MOST_BYTES:
        raise SchemaError(f"{schema_name}: {len(text)} bytes, expected at most {MOST_BYTES}")
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{schema_name}: no JSON: {error}") from error
    check(document, load(schema_name), schema_name)
    checked: dict[str, Any] = document
    return checked


def check_probe(data: Any) -> None:
    """Check what an agent's probe found, which comes before any result.

    Raises:
        SchemaError: it names the place.
    """
    check(data, load("result")["properties"]["probe"], "probe")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


@cache
def load(schema_name: str) -> dict[str, Any]:
    """Return one of the published schemas."""
    file = resources.files("remote_bench").joinpath(f"{schema_name}.schema.json")
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


def check(value: Any, schema: dict[str, Any], place: str) -> None:
    """Check a value against a schema.

    Raises:
        SchemaError: at the first place that does not fit.
    """
    kinds = schema.get("type", list(_KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_is_kind(value, kind) for kind in kinds):
        raise SchemaError(f"{place}: expected {' or '.join(kinds)}, got {value!r:.60}")
    if "enum" in schema and value not in schema["enum"]:
        raise SchemaError(f"{place}: expected one of {schema['enum']}, got {value!r:.60}")
    if isinstance(value, dict):
        _check_object(value, schema, place)
    elif isinstance(value, list | tuple):
        _check_array(value, schema, place)
    elif isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        raise SchemaError(f"{place}: {len(value)} characters, at most {schema['maxLength']}")
    elif isinstance(value, int | float):
        _check_number(value, schema, place)


def _is_kind(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, _KINDS[kind])


def _check_number(value: float, schema: dict[str, Any], place: str) -> None:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if not low <= value <= high:
        raise SchemaError(f"{place}: expected {low} to {high}, got {value}")


def _check_object(value: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        raise SchemaError(f"{place}: missing {missing}")
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for name, item in value.items():
        inner = properties.get(name, rest)
        if inner is False:
            raise SchemaError(f"{place}: unknown key {name!r:.60}")
        if isinstance(inner, dict):
            check(item, inner, f"{place}.{name}")


def _all_numbers(value: list[Any] | tuple[Any, ...], schema: dict[str, Any]) -> bool:
    """Return whether a long array holds good numbers only; quick, for every frame is here."""
    if schema.get("type") not in ("number", ["number", "null"]) or set(map(type, value)) != {float}:
        return False
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return math.isfinite(sum(value)) and low <= min(value) and max(value) <= high


def _check_array(value: list[Any] | tuple[Any, ...], schema: dict[str, Any], place: str) -> None:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        raise SchemaError(f"{place}: {len(value)} entries, expected {low} to {high}")
    first, rest = schema.get("prefixItems", []), schema.get("items", {})
    if not first and _all_numbers(value, rest):
        return
    for number, item in enumerate(value):
        check(item, first[number] if number < len(first) else rest, f"{place}[{number}]")
