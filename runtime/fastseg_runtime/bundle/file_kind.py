"""What a file is, told by its first bytes, for messages about one that is not what was expected."""

import codecs
import re
import zipfile
from pathlib import Path
from typing import Tuple, Union

# Offset, bytes -> what begins so.
_MAGIC: Tuple[Tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file it stands for"),
    (4, b"TFL3", "a TFLite model"),
    (0, b"RKNN", "a model for Rockchip's NPUs"),
    (0, b"ptrt", "a TensorRT engine"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "an MP4 or HEIF video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x7fELF", "a program or library"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
)
TORCH, SAFETENSORS, BUNDLE = "a torch file", "a safetensors file", "a fastseg bundle"
PICKLE, UNKNOWN = "a pickle", "a file of an unknown kind"
ONNX = "an ONNX model"
EMPTY, DAMAGED_ZIP = "an empty file", "a zip archive that is damaged or cut short"
# How torch.save() began until 1.6: pickle protocol 2 of the number 0x1950a86a20f9469cfc6c.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP, _PICKLED = b"PK\x03\x04", re.compile(rb"\x80[\x02-\x05]")
# ONNX's ModelProto: ir_version; then the producer's name, which is text where other formats have
# a message, or at once the graph or the operator sets.
_ONNX = re.compile(
    rb"\x08[\x01-\x20]([\x12\x1a\x22].[ -~]*[\x12\x1a\x22\x28\x3a\x42]|[\x3a\x42])", re.S
)
_HEAD = 512  # bytes: as far as the magic of a tar lies


def file_kind(path: Union[str, Path]) -> str:
    """Return what a file holds, in words such as "an ONNX model", whatever its name says.

    Nothing in it is run or unpacked. UNKNOWN where nothing tells.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return "a folder"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return EMPTY
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    for offset, magic, kind in _MAGIC:
        if head[offset:].startswith(magic):
            return kind
    if head.startswith(_OLD_TORCH):
        return TORCH
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return SAFETENSORS
    if _ONNX.match(head):
        return ONNX
    return PICKLE if _PICKLED.match(head) else _kind_of_text(head)


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return DAMAGED_ZIP
    ends = {name.rpartition("/")[2] for name in names}
    if "manifest.json" in names:
        return BUNDLE
    if "constants.pkl" in ends:
        return "a TorchScript program"
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return "a program of torch.export"
    if "data.pkl" in ends:
        return TORCH
    return (
        "a NumPy archive" if names and all(n.endswith(".npy") for n in names) else "a zip archive"
    )


def _kind_of_text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, as a failed download leaves it"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the head may cut a letter
    except UnicodeDecodeError:
        return UNKNOWN
    plain = all(character.isprintable() or character in "\t\r\n\f" for character in text)
    return "a text file" if plain else UNKNOWN
