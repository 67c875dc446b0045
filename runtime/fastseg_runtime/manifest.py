"""The manifest of a bundle as frozen dataclasses: one definition for reader and writer.

docs/bundle.md describes every field. Unknown keys are kept out but tolerated (a newer writer
may add some); missing or mistyped ones are a ManifestError that names the place.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_origin,
)

from fastseg_runtime.usage import USAGES

SCHEMA = 1
IGNORE_INDEX = 255
MAX_NUMBER = 1e6  # of a mean or a standard deviation
MAX_SIDE = 16384  # pixels: more is a damaged or hostile manifest
T = TypeVar("T")


class ManifestError(ValueError):
    """The manifest is not one that this version can read."""


@dataclass(frozen=True)
class ClassInfo:
    """A class of pixels: its name and its colour in overlays, RGB."""

    name: str
    color: Tuple[int, int, int]


@dataclass(frozen=True)
class ModelInfo:
    """Where the weights come from."""

    variant: str
    parameters: int
    macs: int
    checkpoint_sha256: str
    trained_on: str = ""
    data_licence: str = ""
    usage: str = ""  # one of fastseg_runtime.usage.USAGES
    normalization: Optional[Dict[str, Any]] = None  # the network's own, inside of the artifacts
    logits: Optional[Dict[str, Any]] = None  # which output they are, the threshold of one logit


@dataclass(frozen=True)
class InputSpec:
    """What the network takes: size in pixels, channel order, (x - mean) / std."""

    width: int
    height: int
    color: str = "rgb"
    mean: float = 128.0
    std: float = 64.0
    resize: str = "stretch"  # or "letterbox"


@dataclass(frozen=True)
class OutputSpec:
    """What the artifacts give: "classes" at the input's size / mask_stride, or "logits" at 1/8."""

    kind: str = "classes"
    mask_stride: int = 1


@dataclass(frozen=True)
class FileEntry:
    """One member of the bundle with its size and hash."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """One network file for one family of devices, with the evidence that it works."""

    target: str
    format: str
    precision: str
    entry: str
    files: Tuple[FileEntry, ...]
    io: Dict[str, Any] = field(default_factory=dict)
    requires: Dict[str, Any] = field(default_factory=dict)
    toolchain: Dict[str, str] = field(default_factory=dict)
    attempts: Tuple[Dict[str, Any], ...] = ()
    verification: Optional[Dict[str, Any]] = None
    benchmarks: Tuple[Dict[str, Any], ...] = ()
    extra: Dict[str, Any] = field(default_factory=dict)  # roofline bounds, layer ranking, ...


@dataclass(frozen=True)
class Manifest:
    """Everything that readers of a bundle may rely on."""

    name: str
    created: str
    tool: str
    model: ModelInfo
    classes: Tuple[ClassInfo, ...]
    input: InputSpec
    output: OutputSpec
    artifacts: Tuple[Artifact, ...] = ()
    selftest: Tuple[FileEntry, ...] = ()
    ignore_index: int = IGNORE_INDEX
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the manifest as an indented JSON document with a stable key order."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check a manifest.

        Raises:
            ManifestError: not JSON, another schema, or a field that is missing or mistyped.
        """
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"manifest.json is not JSON: {error}") from error
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            found = table.get("schema") if isinstance(table, dict) else type(table).__name__
            raise ManifestError(
                f"manifest.json has schema {found!r}, this fastseg reads {SCHEMA}: "
                "upgrade fastseg-runtime, or export the bundle again"
            )
        manifest = _parse(cls, table, "manifest")
        for place, value, valid in _limits(manifest):
            if not valid:
                raise ManifestError(f"manifest.{place}: {value!r} makes no sense here")
        return manifest


# Fields that hold other records; everything else is checked by its simple type.
_NESTED: Dict[str, Type[Any]] = {
    "model": ModelInfo,
    "input": InputSpec,
    "output": OutputSpec,
}
_NESTED_LISTS: Dict[str, Type[Any]] = {
    "classes": ClassInfo,
    "artifacts": Artifact,
    "files": FileEntry,
    "selftest": FileEntry,
}
# Type of a field -> the types that JSON may give.
_SIMPLE: Dict[Any, Tuple[Type[Any], ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    dict: (dict,),
    tuple: (list,),
    Union: (dict, type(None)),
}


def _limits(manifest: Manifest) -> List[Tuple[str, Any, bool]]:
    """Return places, their values, and whether these can be."""
    given, output = manifest.input, manifest.output
    count = len(manifest.classes)
    return [
        ("classes", count, 1 <= count <= IGNORE_INDEX),
        ("model.normalization", manifest.model.normalization, _normalises(manifest.model)),
        ("model.usage", manifest.model.usage, manifest.model.usage in USAGES),
        ("input.width", given.width, 1 <= given.width <= MAX_SIDE),
        ("input.height", given.height, 1 <= given.height <= MAX_SIDE),
        ("input.color", given.color, given.color == "rgb"),
        ("input.std", given.std, given.std > 0),
        ("input.mean", given.mean, 0 <= given.mean <= 255),
        ("input.resize", given.resize, given.resize in ("stretch", "letterbox")),
        ("output.kind", output.kind, output.kind in ("classes", "logits")),
        ("output.mask_stride", output.mask_stride, output.mask_stride in (1, 2, 4)),
    ]


def _normalises(model: ModelInfo) -> bool:
    """Return whether the network's own normalisation, if there is one, is three finite pairs."""
    given = model.normalization
    if given is None:
        return True
    lists = [given.get("mean"), given.get("std")]
    if not all(isinstance(values, list) and len(values) == 3 for values in lists):
        return False
    numbers = [value for values in lists for value in values]  # type: ignore[union-attr]
    return (
        all(type(value) in (int, float) and abs(value) <= MAX_NUMBER for value in numbers)
        and all(value > 0 for value in numbers[3:])
        and given.get("scale") in (1, 255)
        and given.get("color") in ("rgb", "bgr")
    )


def _parse(record: Type[T], table: Any, place: str) -> T:
    if not isinstance(table, Mapping):
        raise ManifestError(f"{place}: expected an object, got {type(table).__name__}")
    values: Dict[str, Any] = {}
    for entry in dataclasses.fields(record):  # type: ignore[arg-type]
        if entry.name in table:
            here = f"{place}.{entry.name}"
            values[entry.name] = _value(entry.name, entry.type, table[entry.name], here)
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{place}: {entry.name} is missing")
    return record(**values)


def _value(name: str, annotation: Any, value: Any, place: str) -> Any:
    if name in _NESTED:
        return _parse(_NESTED[name], value, place)
    expected = _SIMPLE[get_origin(annotation) or annotation]
    if not isinstance(value, expected) or isinstance(value, bool):
        names = " or ".join(kind.__name__ for kind in expected)
        raise ManifestError(f"{place}: expected {names}, got {value!r:.80}")
    if name in _NESTED_LISTS:
        record = _NESTED_LISTS[name]
        return tuple(_parse(record, item, f"{place}[{i}]") for i, item in enumerate(value))
    if name == "color" and isinstance(value, list):
        return _color(value, place)
    return tuple(value) if isinstance(value, list) else value


def _color(value: List[Any], place: str) -> Tuple[int, ...]:
    if len(value) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise ManifestError(f"{place}: expected three integers 0 to 255, got {value!r:.80}")
    return tuple(value)
