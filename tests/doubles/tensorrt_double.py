"""A fake tensorrt module per release, generated from the records of NVIDIA's binding modules.

Every class, member, argument and enum name comes from FASTSEG_TENSORRT_API/<version>.json; what
a release does not list is refused as the real module would refuse it. Behind the names stands
tensorrt_behaviour.py, which computes real outputs with ONNX Runtime.

What the records lack is added by hand here: __version__, enum integers where code does
arithmetic with them, the buffer protocol of IHostMemory, ILogger's severities, base classes.
"""

import copy
import functools
import inspect
import json
import os
import re
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.doubles import tensorrt_behaviour
from tests.doubles.cudart_double import FakeCudart

# NvInferRuntime.h; other enums are only ever compared.
ENUM_INTEGERS = {
    "NetworkDefinitionCreationFlag": {
        "EXPLICIT_BATCH": 0,
        "EXPLICIT_PRECISION": 1,
        "STRONGLY_TYPED": 1,
        "PREFER_JIT_PYTHON_PLUGINS": 2,
        "PREFER_AOT_PYTHON_PLUGINS": 3,
    },
}
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
BASES = {"Logger": "ILogger"}
SUBCLASSED = ("ILogger", "IProgressMonitor")  # by their users, who override every method
_BUFFER = ("buffer", "typing_extensions.Buffer")
_INTEGER = ("int", "typing.SupportsInt")


def api_folder() -> Path | None:
    """Return the folder with the records, or None where the tests must skip."""
    named = os.environ.get("FASTSEG_TENSORRT_API")
    return Path(named) if named else None


def releases() -> list[str]:
    """Return the versions on record, oldest first; empty without records."""
    folder = api_folder()
    versions = [path.stem for path in folder.glob("*.json")] if folder else []
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])


@functools.cache
def read_record(version: str) -> dict[str, Any]:
    folder = api_folder()
    assert folder is not None
    record: dict[str, Any] = json.loads((folder / f"{version}.json").read_text())
    return record


def make_tensorrt(
    version: str,
    cudart: FakeCudart,
    without: tuple[str, str] | None = None,
    scenario: "tensorrt_behaviour.Scenario | None" = None,
) -> Any:
    """Return a fake tensorrt module.

    Args:
        version: one of releases().
        cudart: the GPU it works on.
        without: a (class or enum, member) to take out of the record.
        scenario: what goes wrong.

    The module's `used` is the set of (class or enum, member) that were touched.
    """
    record = copy.deepcopy(read_record(version))
    if without is not None:
        table = record["classes"].get(without[0]) or record["enums"][without[0]]
        table.pop(without[1]) if isinstance(table, dict) else table.remove(without[1])
    return _Factory(record, cudart, scenario or tensorrt_behaviour.Scenario()).module()


class EnumMember:
    """One value of a pybind11 enum: a name, an int() and identity."""

    def __init__(self, enum: str, name: str, value: int) -> None:
        self.enum, self.name, self.value = enum, name, value

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<{self.enum}.{self.name}: {self.value}>"


class Enum:
    """A pybind11 enum: only the listed names exist."""

    def __init__(self, name: str, members: Iterable[str], used: set[tuple[str, str]]) -> None:
        integers = ENUM_INTEGERS.get(name, {})
        self._name, self._used = name, used
        self._members = {
            member: EnumMember(name, member, integers.get(member, index))
            for index, member in enumerate(members)
        }

    def __getattr__(self, name: str) -> EnumMember:
        if name.startswith("_") or name not in self._members:
            raise AttributeError(f"type object 'tensorrt.{self._name}' has no attribute {name!r}")
        self._used.add((self._name, name))
        return self._members[name]


class _Severity:
    """ILogger.WARNING and its like: class attributes, recorded when touched."""

    def __init__(self, owner: str, name: str, value: int, used: set[tuple[str, str]]) -> None:
        self._member = EnumMember("ILogger.Severity", name, value)
        self._key, self._used = (owner, name), used

    def __get__(self, instance: Any, owner: Any) -> EnumMember:
        self._used.add(self._key)
        return self._member


class _Factory:
    """Makes the classes of one module and wraps what their behaviours return."""

    def __init__(
        self,
        record: dict[str, Any],
        cudart: FakeCudart,
        scenario: "tensorrt_behaviour.Scenario",
    ) -> None:
        self.record, self.used = record, set[tuple[str, str]]()
        self.world = tensorrt_behaviour.World(record["tensorrt_version"], cudart, scenario)
        self.enums = {
            name: Enum(name, members, self.used) for name, members in record["enums"].items()
        }
        self.severities = {
            name: _Severity("ILogger", name, value, self.used)
            for value, name in enumerate(SEVERITIES)
        }
        self.world.severities = {name: s._member for name, s in self.severities.items()}
        self.classes: dict[str, type] = {}
        for name in sorted(record["classes"], key=BASES.__contains__):  # bases first
            self.classes[name] = self._make_class(name, record["classes"][name])

    def module(self) -> Any:
        module = types.ModuleType("tensorrt")
        module.__dict__.update(self.enums, **self.classes)
        module.__dict__.update(
            __version__=self.record["tensorrt_version"],
            used=self.used,
            world=self.world,
        )
        return module

    def _make_class(self, name: str, members: dict[str, Any]) -> type:
        namespace: dict[str, Any] = {"__setattr__": self._strict_setattr(name)}
        for member, entry in members.items():
            if member in SEVERITIES:
                namespace[member] = self.severities[member]
            elif member == "__init__":
                namespace[member] = self._constructor(name, entry["signatures"])
            elif entry["kind"] == "property":
                namespace[member] = self._property(name, member, entry["settable"])
            elif entry["signatures"]:
                namespace[member] = self._method(name, member, entry["signatures"])
        if name == "IHostMemory":
            namespace["__bytes__"] = lambda self: self._inner.data
        bases = (self.classes[BASES[name]],) if name in BASES else ()
        return type(name, bases, namespace)

    def _constructor(self, name: str, signatures: list[str]) -> Callable[..., None]:
        def __init__(self_: Any, *args: Any, **kwargs: Any) -> None:
            if not signatures:
                raise TypeError(f"tensorrt.{name}: No constructor defined!")
            values = self._check(name, "__init__", signatures, args, kwargs)
            inner = getattr(tensorrt_behaviour, name, None)
            object.__setattr__(
                self_, "_inner", inner(self.world, *values) if inner else types.SimpleNamespace()
            )

        return __init__

    def _strict_setattr(self, name: str) -> Callable[..., None]:
        def __setattr__(self_: Any, attribute: str, value: Any) -> None:
            subclassed = type(self_) is not self.classes[name]
            if not subclassed and not isinstance(getattr(type(self_), attribute, None), property):
                raise AttributeError(f"'tensorrt.{name}' object has no attribute {attribute!r}")
            object.__setattr__(self_, attribute, value)

        return __setattr__

    def _property(self, name: str, member: str, settable: bool) -> property:
        def get(self_: Any) -> Any:
            self.used.add((name, member))
            return self._wrap(getattr(self_._inner, member))

        def set_(self_: Any, value: Any) -> None:
            self.used.add((name, member))
            self._check_overrides(value)
            setattr(self_._inner, member, self._unwrap(value))

        return property(get, set_ if settable else None)

    def _method(self, name: str, member: str, signatures: list[str]) -> Callable[..., Any]:
        def method(self_: Any, *args: Any, **kwargs: Any) -> Any:
            values = self._check(name, member, signatures, args, kwargs)
            return self._wrap(getattr(self_._inner, member)(*values))

        return method

    def _check(
        self, name: str, member: str, signatures: list[str], args: Any, kwargs: Any
    ) -> list[Any]:
        """Return the arguments in order, unwrapped, if one of the signatures takes them."""
        self.used.add((name, member))
        problems = []
        for signature in signatures:
            if "*args" in signature:
                continue  # the title line of overloads
            try:
                return self._bind(signature, args, kwargs)
            except TypeError as error:
                problems.append(f"{signature}: {error}")
        raise TypeError(f"{name}.{member}(): incompatible arguments\n" + "\n".join(problems))

    def _bind(self, signature: str, args: Any, kwargs: Any) -> list[Any]:
        parameters = parse_signature(signature)
        bound = inspect.Signature(
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
                for name, _, default in parameters
            ]
        ).bind(*args, **kwargs)
        bound.apply_defaults()
        for name, annotation, _ in parameters:
            self._check_type(name, annotation, bound.arguments[name])
        return [self._unwrap(value) for value in bound.arguments.values()]

    def _check_type(self, name: str, annotation: str, value: Any) -> None:
        if isinstance(value, Default):
            return
        if annotation in _INTEGER:
            fits = hasattr(value, "__index__") and not isinstance(value, bool)
        elif annotation in _BUFFER:
            fits = isinstance(value, bytes | bytearray | memoryview)
        elif annotation in ("str", "bool"):
            fits = isinstance(value, str if annotation == "str" else bool)
        elif annotation in self.enums:
            fits = isinstance(value, EnumMember) and value.enum == annotation
        elif annotation in self.classes:
            fits = isinstance(value, self.classes[annotation])
            self._check_overrides(value)
        else:
            raise NotImplementedError(f"the double cannot check {name}: {annotation}")
        if not fits:
            raise TypeError(f"{name} must be {annotation}, got {value!r:.60}")

    def _check_overrides(self, value: Any) -> None:
        """Check that a user's subclass overrides only what TensorRT calls, as it calls it."""
        name = next((base for base in SUBCLASSED if self._is_a(value, base)), None)
        if name is None or type(value) in self.classes.values():
            return
        if not hasattr(value, "_inner"):
            raise TypeError(f"{name}.__init__() must be called when overriding __init__")
        for member, function in vars(type(value)).items():
            if member.startswith("_") or not callable(function):
                continue
            self.used.add((name, member))
            (signature,) = self.record["classes"][name][member]["signatures"]
            expected = [parameter for parameter, _, _ in parse_signature(signature)]
            if len(inspect.signature(function).parameters) != 1 + len(expected):
                raise TypeError(f"{name}.{member} is called with {expected}")

    def _is_a(self, value: Any, name: str) -> bool:
        return name in self.classes and isinstance(value, self.classes[name])

    def _wrap(self, value: Any) -> Any:
        """Give a behaviour the generated class that is named like it."""
        name = type(value).__name__
        if isinstance(value, tensorrt_behaviour.Behaviour):
            wrapped = object.__new__(self.classes[name])
            object.__setattr__(wrapped, "_inner", value)
            return wrapped
        if isinstance(value, tensorrt_behaviour.EnumName):
            return self.enums[value.enum]._members[value.name]
        return value

    def _unwrap(self, value: Any) -> Any:
        inner = getattr(value, "_inner", None)
        return inner if isinstance(inner, tensorrt_behaviour.Behaviour) else value


class Default:
    """A default value of the C++ side, which Python code never sees."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __index__(self) -> int:
        return int(self.text)


@functools.cache
def parse_signature(signature: str) -> tuple[tuple[str, str, Any], ...]:
    """Return (name, annotation, default) per parameter after self.

    "create_network(self: Builder, flags: int = 0) -> INetworkDefinition" gives
    (("flags", "int", Default("0")),).
    """
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    parts = re.split(r", (?=\w+: )", inside)
    parameters = []
    for part in parts[1:] if parts[0].startswith("self") else parts:
        name, _, rest = part.partition(": ")
        annotation, equals, default = rest.partition(" = ")
        empty = inspect.Parameter.empty
        parameters.append((name, annotation, Default(default) if equals else empty))
    return tuple(parameters)
