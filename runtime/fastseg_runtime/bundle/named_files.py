"""Which files a model names, read from its own bytes before any engine is given it.

ONNX may keep weights in other files, Core ML and LiteRT too, and engines open whatever path stands
there: ONNX Runtime 1.22 and 1.23 even absolute ones, so that a network can give back any file of
the device as its class map. Here a model may name files that its bundle lists beside it, and a
bare file those in its own folder that bear its name, as PyTorch writes them.

The protobuf wire format is read as strictly as it was ever read by an engine, so that no engine
sees a name that was not seen here: https://protobuf.dev/programming-guides/encoding/
"""

import json
import struct
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple, Union

from fastseg_runtime.bundle.manifest import without_repeats
from fastseg_runtime.bundle.reader import BundleError

# Of onnx/onnx.proto: message -> field number -> the message in it, where that leads to a tensor.
ONNX: Dict[str, Dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
# Of coremltools' Model.proto and MIL.proto, likewise; an ...Entry is a pair of a map.
CORE_ML: Dict[str, Dict[int, str]] = {
    "Model": {502: "Program"},
    "Program": {2: "FunctionsEntry", 4: "AttributesEntry"},
    "FunctionsEntry": {2: "Function"},
    "Function": {1: "NamedValueType", 3: "BlockSpecializationsEntry", 4: "AttributesEntry"},
    "BlockSpecializationsEntry": {2: "Block"},
    "Block": {1: "NamedValueType", 3: "Operation", 4: "AttributesEntry"},
    "Operation": {2: "InputsEntry", 3: "NamedValueType", 4: "Block", 5: "AttributesEntry"},
    "InputsEntry": {2: "Argument"},
    "Argument": {1: "Binding"},
    "Binding": {2: "Value"},
    "AttributesEntry": {2: "Value"},
    "Value": {2: "ValueType", 3: "ImmediateValue", 5: "BlobFileValue"},
    "ImmediateValue": {2: "TupleValue", 3: "ListValue", 4: "DictionaryValue"},
    "TupleValue": {1: "Value"},
    "ListValue": {1: "Value"},
    "DictionaryValue": {1: "KeyValuePair"},
    "KeyValuePair": {1: "Value", 2: "Value"},
    "NamedValueType": {2: "ValueType"},
    "ValueType": {
        1: "TensorType",
        2: "ListType",
        3: "TupleType",
        4: "DictionaryType",
        5: "StateType",
    },
    "TensorType": {4: "AttributesEntry"},
    "ListType": {1: "ValueType"},
    "TupleType": {1: "ValueType"},
    "DictionaryType": {1: "ValueType", 2: "ValueType"},
    "StateType": {1: "ValueType"},
}
_CORE_ML_KINDS = 200  # the first field of Model that is a kind of model
_EXTERNAL_DATA, _DATA_LOCATION, _OP_TYPE, _ATTRIBUTE = 13, 14, 4, 5
_NAME, _INTEGER = 1, 3  # of an AttributeProto
MAX_DEPTH = 100  # protobuf's own limit
MAX_FIELDS = 200_000  # some tenths of a second and 40 MB; our own have a few thousand
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit
# Of a field: its number, and an integer, the place (start, end) of its bytes, or None for a number
# of 4 or 8 bytes.
Field = Tuple[int, Union[int, Tuple[int, int], None]]


def check_onnx(
    content: bytes,
    name: str,
    members: Optional[Mapping[str, int]] = None,
    compiled: bool = False,
) -> Set[str]:
    """Refuse an ONNX file that names any file but its members.

    Args:
        content: the file.
        name: for messages.
        members: files beside it that it may name: plain name -> size in bytes.
        compiled: it may hold what was compiled elsewhere, if that is whole within it.

    Returns:
        The members that it names.

    Raises:
        BundleError: it is damaged, or names another file, or bytes that the file has not.
        ValueError: another format, or larger than any network.
    """
    if content[4:8] == b"ORTM":  # another format, which onnxruntime takes by these bytes
        raise ValueError(f"{name} is in onnxruntime's own format; expected ONNX")
    named: Set[str] = set()
    has_graph = False
    for kind, fields in _messages(content, name, "ModelProto", ONNX):
        has_graph = has_graph or kind == "GraphProto"
        if kind == "TensorProto":
            named.update(_check_tensor(content, fields, name, members or {}))
        elif (
            kind == "NodeProto"
            and b"EPContext" in _texts(content, fields, _OP_TYPE)
            and not (compiled and _embeds(content, fields, name))
        ):
            raise BundleError(
                f"{name} holds an engine that was compiled elsewhere (an EPContext node), or the "
                "name of one; export the network as a graph"
            )
    if not has_graph:
        raise _malformed(name)
    return named


def files_beside(path: Path, bearing_its_name: bool = False) -> Dict[str, int]:
    """Return plain name -> size of the other files in the folder of a bare one; links are none.

    Args:
        path: the bare file.
        bearing_its_name: only those that begin as it does: net.onnx.data beside net.onnx.
    """
    start = path.stem if bearing_its_name else ""
    return {
        file.name: file.stat().st_size
        for file in path.parent.glob("*")
        if file.name.startswith(start) and file.name != path.name
        if file.is_file() and not file.is_symlink()
    }


def check_mlpackage(package: Path) -> None:
    """Refuse a Core ML package that names files outside itself, or is no ML program.

    Args:
        package: its folder.

    Raises:
        BundleError: it names another file.
        ValueError: it cannot be read, or holds a model of another kind.
    """
    files = [file for file in package.rglob("*") if file.is_file()]
    sizes = {file.relative_to(package).as_posix(): file.stat().st_size for file in files}
    models = {path for path in sizes if path.endswith(".mlmodel")}
    for item in _items((package / "Manifest.json").read_bytes(), package.name):
        path = f"Data/{item}"
        if ".." in path.split("/") or not any(f"{size}/".startswith(f"{path}/") for size in sizes):
            raise _outside(package.name, item)
        if path in sizes:
            models.add(path)
    for path in sorted(models):
        _check_ml_program((package / path).read_bytes(), path, sizes)


def check_tflite(content: bytes, name: str) -> None:
    """Refuse a .tflite whose weights lie in other files, or outside of this one.

    LiteRT adds offset and size of a buffer in 64 bits and looks at the sum alone: an offset of
    2**64 - 8 gives a network the memory before its file.

    Raises:
        BundleError: they do, or it is no .tflite.
    """
    buffers, external_buffer_groups, external_buffers = 4, 8, 9  # slots of Model in schema.fbs
    offset, size = 1, 2  # of Buffer
    try:
        if content[4:8] != b"TFL3":
            raise _malformed(name)
        model = _pointed(content, 0)
        if _slot(content, model, external_buffer_groups) or _slot(content, model, external_buffers):
            raise BundleError(f"{name} keeps weights in other files; export it as one file")
        at = _slot(content, model, buffers)
        vector = _pointed(content, at) if at else 0
        (count,) = struct.unpack_from("<I", content, vector) if at else (0,)
        if count > MAX_FIELDS:
            raise ValueError(f"{name} has too many parts to be a network")
        for index in range(count):
            buffer = _pointed(content, vector + 4 + 4 * index)
            places = [_slot(content, buffer, slot) for slot in (offset, size)]
            if sum(struct.unpack_from("<Q", content, at)[0] for at in places if at) > len(content):
                raise BundleError(f"{name} wants bytes that it does not have; export it again")
    except struct.error as error:
        raise _malformed(name) from error


def _pointed(content: bytes, at: int) -> int:
    """Return the place that an offset of a flatbuffer points to."""
    return at + int(struct.unpack_from("<I", content, at)[0])


def _slot(content: bytes, table: int, slot: int) -> int:
    """Return the place of a field of a flatbuffer's table; 0 where it has none."""
    at = table - int(struct.unpack_from("<i", content, table)[0])
    if at < 0:  # Python would count from the end
        raise struct.error("a table before the file")
    (table_bytes,) = struct.unpack_from("<H", content, at)
    if 4 + 2 * slot + 2 > table_bytes:
        return 0
    (place,) = struct.unpack_from("<H", content, at + 4 + 2 * slot)
    return table + int(place) if place else 0


def _check_tensor(
    content: bytes, fields: List[Field], name: str, members: Mapping[str, int]
) -> List[str]:
    """Return the member that holds a tensor's data, if it is one that may."""
    entries = [value for number, value in fields if number == _EXTERNAL_DATA]
    flags = [value for number, value in fields if number == _DATA_LOCATION]
    if not entries and not any(flags):
        return []
    table: Dict[bytes, bytes] = {}
    for place in entries:
        pair = _fields(content, place, name) if isinstance(place, tuple) else []
        keys, values = _texts(content, pair, 1), _texts(content, pair, 2)
        if len(keys) != 1 or len(values) != 1 or keys[0] in table:
            raise BundleError(f"{name} is unclear about where a tensor's data is; export it again")
        table[keys[0]] = values[0]
    location = table.get(b"location", b"").decode("utf-8", "replace")
    if location not in members:
        raise _outside(name, location)
    offset, length = (_number(table.get(key, b"0")) for key in (b"offset", b"length"))
    if offset + length > members[location]:
        raise BundleError(
            f"{name} wants bytes {offset} to {offset + length} of {location!r}, which has "
            f"{members[location]}; copy the bundle again, or export it again"
        )
    return [location]


def _embeds(content: bytes, node: List[Field], name: str) -> bool:
    """Return whether an EPContext node says once that all of it is in the file."""
    said = []
    for number, place in node:
        if number == _ATTRIBUTE and isinstance(place, tuple):
            fields = _fields(content, place, name)
            if b"embed_mode" in _texts(content, fields, _NAME):
                said += [value for key, value in fields if key == _INTEGER]
    return said == [1]


def _check_ml_program(content: bytes, name: str, members: Mapping[str, int]) -> None:
    kinds = {number for number, _ in _fields(content, (0, len(content)), name)}
    if {number for number in kinds if number >= _CORE_ML_KINDS} != {502}:
        raise ValueError(f"{name} is no ML program; export it with fastseg-export")
    folder = PurePosixPath(name).parent
    for kind, fields in _messages(content, name, "Model", CORE_ML):
        if kind != "BlobFileValue":
            continue
        texts = [text.decode("utf-8", "replace") for text in _texts(content, fields, 1)]
        if len(texts) != 1 or not texts[0].startswith("@model_path/"):
            raise _outside(name, ", ".join(texts))
        offsets = [value for number, value in fields if number == 2 and isinstance(value, int)]
        size = members.get(str(folder / texts[0][len("@model_path/") :]))
        if size is None or max(offsets, default=0) >= size:
            raise _outside(name, texts[0])


def _items(content: bytes, name: str) -> List[str]:
    """Return the paths that a package's Manifest.json names."""
    try:
        table: Any = json.loads(content.decode("utf-8"), object_pairs_hook=without_repeats)
        entries = table.get("itemInfoEntries", {})
        return [str(item["path"]) for item in entries.values()]
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{name} is no manifest of a Core ML package") from error


def _outside(name: str, location: str) -> BundleError:
    return BundleError(
        f"{name} names the file {location[:200]!r}, which is not part of it: nothing outside of a "
        "model is opened. Export it as a bundle, or as one file with its weights inside"
    )


def _number(text: bytes) -> int:
    """Return a decimal; one that is none is more than any file has."""
    return int(text) if len(text) < 20 and text.isdigit() else MAX_BYTES * MAX_BYTES


def _texts(content: bytes, fields: List[Field], wanted: int) -> List[bytes]:
    return [
        content[place[0] : place[1]]
        for number, place in fields
        if number == wanted and isinstance(place, tuple)
    ]


def _messages(
    content: bytes, name: str, kind: str, children: Mapping[str, Mapping[int, str]]
) -> Iterator[Tuple[str, List[Field]]]:
    """Yield every message that can hold a name, with its fields, from the outside in."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} has {len(content)} bytes; a model has at most {MAX_BYTES}")
    left, waiting = MAX_FIELDS, [(kind, (0, len(content)), 0)]
    while waiting:
        kind, place, depth = waiting.pop()
        fields = _fields(content, place, name, left)
        left -= len(fields) + 1
        if left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"{name} is nested too deeply or has too many parts to be a network")
        yield kind, fields
        inner = children.get(kind, {})
        waiting += [
            (inner[number], value, depth + 1)
            for number, value in fields
            if number in inner and isinstance(value, tuple)
        ]


def _fields(
    content: bytes, place: Tuple[int, int], name: str, limit: int = MAX_FIELDS
) -> List[Field]:
    """Return the fields of one message, none of them longer than the message."""
    found: List[Field] = []
    at, end = place
    while at < end:
        tag, at = _varint(content, at, end, name)
        number, wire_type = tag >> 3, tag & 7
        value: Union[int, Tuple[int, int], None] = None
        if wire_type == 0:
            value, at = _varint(content, at, end, name)
        elif wire_type == 2:
            length, at = _varint(content, at, end, name)
            value, at = (at, at + length), at + length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        # Parsers have cut longer tags down to 32 bits; groups are in neither format.
        if wire_type in (3, 4, 6, 7) or not 0 < number < 1 << 29 or at > end:
            raise _malformed(name)
        found.append((number, value))
        if len(found) > limit:
            raise ValueError(f"{name} has too many parts to be a network")
    return found


def _varint(content: bytes, at: int, end: int, name: str) -> Tuple[int, int]:
    """Return a number and the place after it."""
    value = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _malformed(name)


def _malformed(name: str) -> BundleError:
    return BundleError(f"{name} is damaged, or no model of its kind: its bytes make no sense")
