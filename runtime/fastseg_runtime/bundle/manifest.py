"""The manifest of a bundle as frozen dataclasses: one definition for reader and writer.

docs/bundle.md describes every field. Unknown keys are kept out but tolerated (a newer writer
may add some); missing or mistyped ones are a ManifestError that names the place. Every number and
text that this package uses is bounded here, so that nothing else has to ask.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.arrays.terminal import is_plain
from fastseg_runtime.bundle.usage import USAGES

SCHEMA = 1
METADATA_KEY = "fastseg"  # in an ONNX file's metadata: a manifest as JSON, without artifacts
IGNORE_INDEX = 255
FITS = ("stretch", "letterbox")  # how a frame comes into the network's input
MAX_STATISTIC = 1e6  # of a mean or a standard deviation
MAX_SIDE = 16384  # pixels: more is a damaged or hostile manifest
MAX_DEPTH = 50
MAX_ARTIFACTS, MAX_SCENES = 1000, 64  # there are some ten targets, and six scenes
MAX_INTEGER = (1 << 63) - 1
MAX_TEXT = 200  # characters: a name that fits no line is none
MAX_TEXTS = {"trained_on": 4000, "data_licence": 4000, "path": 500, "entry": 500}
STDS = (1e-3, 1e4)  # 255 is the largest of a network that takes 0 to 1
# In Artifact.extra: on the worst scene of the self-test, and on each in their order.
SELFTEST_AGREEMENT, SELFTEST_AGREEMENTS = "selftest_agreement", "selftest_agreements"
# Of a verification: the least that each share of it can be.
_SHARES = {"agreement": 0, "miou": 0, "reference_miou": 0, "miou_drop": -1, "worst_class_drop": -1}
_BACKEND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


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
    usage: str = ""  # one of fastseg_runtime.bundle.usage.USAGES
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
    resize: str = FITS[0]


@dataclass(frozen=True)
class OutputSpec:
    """What the artifacts give: "classes" at the input's size / mask_stride, or "logits"."""

    kind: str = "classes"
    mask_stride: int = 1
    # What logits and a confidence cover: FastSegNet's its padding too, others the "image" alone.
    cover: str = "padded"


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
    toolchain: Dict[str, Any] = field(default_factory=dict)
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
        table = without_nan(dataclasses.asdict(self))
        return json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check a manifest.

        Raises:
            ManifestError: not JSON, another schema, or a field that is missing or mistyped.
        """
        try:
            table = read_json(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"manifest.json is not JSON: {error}") from error
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            found = table.get("schema") if isinstance(table, dict) else type(table).__name__
            raise ManifestError(
                f"manifest.json has schema {found!r}, this fastseg reads {SCHEMA}: "
                "upgrade fastseg-runtime, or export the bundle again"
            )
        try:
            manifest = from_table(cls, table, "", ignore_unknown=True)
        except TableError as error:
            raise ManifestError(f"manifest{error.path}: {error.problem}") from error
        limits = (_value_limits(manifest, ""), _limits(manifest), _artifact_limits(manifest))
        for place, value, valid, expected in chain(*limits):
            if not valid:
                raise ManifestError(
                    f"manifest.{place}: {value!r:.80} makes no sense here; expected {expected}"
                )
        return manifest


# A place, its value, whether that can be, and what can.
_Limit = Tuple[str, Any, bool, str]


def _value_limits(record: Any, place: str) -> Iterator[_Limit]:
    """Yield the limits of a record's own fields, at `place`; refuse texts and open tables."""
    for entry in dataclasses.fields(record):
        name, value, here = entry.name, getattr(record, entry.name), f"{place}{entry.name}"
        if isinstance(value, str):
            _check_text(name, value, f"manifest.{here}")
            if name == "sha256":
                yield here, value, _SHA256.fullmatch(value) is not None, "64 hexadecimal digits"
        elif isinstance(value, int):
            yield here, value, 0 <= value <= MAX_INTEGER, "0 or more"
        elif name == "color":
            fits = all(0 <= part <= 255 for part in value)
            yield here, value, fits, "three integers 0 to 255"
        elif dataclasses.is_dataclass(value):
            yield from _value_limits(value, f"{here}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for index, item in enumerate(value):
                yield from _value_limits(item, f"{here}[{index}].")
        else:
            check_open_table(value, f"manifest.{here}")


def _limits(manifest: Manifest) -> List[_Limit]:
    given, output = manifest.input, manifest.output
    count, names = len(manifest.classes), [entry.name for entry in manifest.classes]
    targets = [artifact.target for artifact in manifest.artifacts]
    scenes = len(manifest.selftest)
    sides, own = f"1 to {MAX_SIDE} pixels", manifest.model.normalization
    return [
        ("classes", count, 1 <= count <= IGNORE_INDEX, f"1 to {IGNORE_INDEX} of them"),
        ("classes", _repeated(names), len(set(names)) == count, "each name once"),
        ("artifacts", _repeated(targets), len(set(targets)) == len(targets), "each target once"),
        ("artifacts", len(targets), len(targets) <= MAX_ARTIFACTS, f"at most {MAX_ARTIFACTS}"),
        ("selftest", scenes, scenes <= MAX_SCENES, f"at most {MAX_SCENES} scenes"),
        ("model.normalization", own, _normalises(manifest.model), "three means, three stds"),
        ("model.usage", manifest.model.usage, manifest.model.usage in USAGES, f"one of {USAGES}"),
        ("input.width", given.width, 1 <= given.width <= MAX_SIDE, sides),
        ("input.height", given.height, 1 <= given.height <= MAX_SIDE, sides),
        ("input.color", given.color, given.color == "rgb", "rgb"),
        ("input.std", given.std, STDS[0] <= given.std <= STDS[1], f"{STDS[0]} to {STDS[1]}"),
        ("input.mean", given.mean, 0 <= given.mean <= 255, "0 to 255"),
        ("input.resize", given.resize, given.resize in FITS, " or ".join(FITS)),
        ("output.kind", output.kind, output.kind in ("classes", "logits"), "classes or logits"),
        ("output.mask_stride", output.mask_stride, output.mask_stride in (1, 2, 4), "1, 2 or 4"),
        ("output.cover", output.cover, output.cover in ("padded", "image"), "padded or image"),
        ("ignore_index", manifest.ignore_index, manifest.ignore_index <= 255, "0 to 255"),
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
        all(type(value) in (int, float) and abs(value) <= MAX_STATISTIC for value in numbers)
        and all(value > 0 for value in numbers[3:])
        and given.get("scale") in (1, 255)
        and given.get("color") in ("rgb", "bgr")
    )


def _artifact_limits(manifest: Manifest) -> Iterator[_Limit]:
    """Yield the limits of what is used from the open tables of each artifact."""
    for index, artifact in enumerate(manifest.artifacts):
        place = f"artifacts[{index}]"
        io, requires, proof = artifact.io, artifact.requires, artifact.verification or {}
        for key in ("image", "classes", "logits", "confidence"):
            yield f"{place}.io.{key}", io.get(key), _is_text(io.get(key, "")), "a short text"
        clash = manifest.output.kind == "logits" and "classes" in io and "logits" not in io
        told = "artifacts that give logits, as output.kind says"
        yield f"{place}.io", io, not clash, told
        count, named = len(manifest.classes), io.get("num_classes")
        one_each = f"{count}, one for each of the classes that the manifest names"
        yield f"{place}.io.num_classes", named, named is None or named == count, one_each
        backend = requires.get("backend", "x")
        name = isinstance(backend, str) and _BACKEND.fullmatch(backend) is not None
        yield f"{place}.requires.backend", backend, name, "the name of a backend, as onnxruntime"
        for key, version in requires.items():
            short = not key.startswith("min_") or (_is_text(version) and len(version) <= 32)
            yield f"{place}.requires.{key}", version, short, "a version, as 1.17"
        recorded = artifact.extra.get(SELFTEST_AGREEMENTS)
        each = recorded if isinstance(recorded, list) else [recorded]
        if isinstance(recorded, list) and None in recorded:
            yield f"{place}.extra.{SELFTEST_AGREEMENTS}", None, False, "a fraction, 0 to 1"
        shares = [(f"verification.{key}", proof.get(key), least) for key, least in _SHARES.items()]
        shares += [(f"extra.{SELFTEST_AGREEMENTS}", value, 0) for value in each]
        shares += [(f"extra.{SELFTEST_AGREEMENT}", artifact.extra.get(SELFTEST_AGREEMENT), 0)]
        for key, value, least in shares:
            expected = "-1 to 1" if least else "a fraction, 0 to 1"
            yield f"{place}.{key}", value, _is_fraction(value, least), expected


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_plain(value, MAX_TEXT)


def _is_fraction(value: Any, least: int) -> bool:
    return value is None or (type(value) in (int, float) and least <= value <= 1)


def _repeated(names: List[str]) -> List[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def without_repeats(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Refuse an object that says something twice: readers would differ in what they take."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError(f"an object says {_repeated([key for key, _ in pairs])[0]!r:.80} twice")
    return table


def check_open_table(value: Any, place: str) -> None:
    """Refuse what JSON does not have, NaN and Infinity, and depths that nobody writes."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise ManifestError(f"{place}: holds {item}; expected numbers")
        if depth > MAX_DEPTH:
            raise ManifestError(f"{place}: is nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, (dict, list, tuple)):
            inner = item.values() if isinstance(item, dict) else item
            waiting += [(part, depth + 1) for part in inner]


def read_json(text: str) -> Any:
    """Return a document that says nothing twice, and has no number that is far too long.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=without_repeats, parse_int=_short_integer)


def _short_integer(text: str) -> int:
    if len(text) > 20:  # and no time is spent on what is far too long
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def without_nan(value: Any) -> Any:
    """Return a table with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _check_text(name: str, value: str, place: str) -> None:
    longest = MAX_TEXTS.get(name, MAX_TEXT)
    if not is_plain(value, longest):
        raise ManifestError(
            f"{place}: {value!r:.80} has {len(value)} characters; expected {longest} at most, none "
            "of them a control character"
        )
    if name in ("name", "target", "path") and not value.strip():
        raise ManifestError(f"{place}: is empty; expected a name")


def numbered_classes(count: int) -> Tuple[ClassInfo, ...]:
    """Return classes class_0, class_1, ... in the colours of the PASCAL VOC colour map."""
    return tuple(ClassInfo(f"class_{index}", _voc_color(index)) for index in range(count))


def palette(classes: Sequence[ClassInfo]) -> Array:
    """Return the colours of all 256 ids, (256, 3) uint8 RGB; black where there is no class."""
    colors: Array = np.zeros((256, 3), np.uint8)
    colors[: len(classes)] = [entry.color for entry in classes]
    return colors


def _voc_color(index: int) -> Tuple[int, int, int]:
    # VOC devkit's VOClabelcolormap.m: bits 0, 1, 2 of the index go to the high bits of R, G, B.
    channels: List[int] = [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (index >> channel & 1) << shift
        index >>= 3
    return channels[0], channels[1], channels[2]
