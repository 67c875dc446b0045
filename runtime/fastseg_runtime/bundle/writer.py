"""Writes bundles: whole or not at all, and the same bytes for the same content."""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, Mapping, Sequence, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.shared_files import whole_file
from fastseg_runtime.arrays.terminal import is_plain
from fastseg_runtime.bundle.file_kind import BUNDLE, DAMAGED_ZIP, EMPTY, file_kind
from fastseg_runtime.bundle.manifest import MAX_TEXT, FileEntry, Manifest
from fastseg_runtime.bundle.reader import MANIFEST, SUFFIX, open_bundle

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


def check_writable(path: Path, replace: bool = False) -> None:
    """Find out before an hour of conversions whether a bundle can be written there.

    Args:
        path: the bundle.
        replace: it takes the place of what is left of one: an empty file, or a damaged bundle.

    Raises:
        OSError: it cannot, or what lies there is no bundle; the message says why and what to do.
    """
    try:
        kind = _kind_there(path)
    except OSError as error:
        writable = "make that folder writable, or " if isinstance(error, PermissionError) else ""
        raise OSError(
            f"cannot write {path}: {error.strerror}; {writable}name another file with -o"
        ) from error
    if kind == EMPTY or (kind == DAMAGED_ZIP and path.suffix.lower() == SUFFIX):
        if not replace:
            raise OSError(
                f"{path} is {kind}; replace it with --force, or name another file with -o"
            )
    elif kind != BUNDLE:  # which no option replaces: it may be the checkpoint itself
        raise OSError(f"{path} is {kind}, no bundle; name another file with -o")
    if not is_plain(path.stem, MAX_TEXT):
        raise OSError(
            f"{path.stem!r:.80} has {len(path.stem)} characters; expected "
            f"{MAX_TEXT} at most, none of them a control character; name another file with -o"
        )


def _kind_there(path: Path) -> str:
    """Return what would be replaced, a bundle if nothing; OSError where nothing can be written."""
    try:
        kind = file_kind(path)
    except FileNotFoundError:
        kind = BUNDLE
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    tempfile.TemporaryFile(dir=nearest).close()  # whole_file makes the folders below it
    return kind


def write_bundle(path: Path, manifest: Manifest, members: Mapping[str, Union[bytes, Path]]) -> None:
    """Write a bundle.

    Args:
        path: the bundle; an old one is replaced only when the new one is complete.
        manifest: its record; every file it names must be among the members.
        members: name in the bundle -> content, or the file that has it.
    """
    with whole_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as bundle:
        bundle.writestr(_header(MANIFEST), manifest.to_json())
        for name in sorted(members):
            bundle.writestr(_header(name), _bytes_of(members[name]))


def _bytes_of(content: Union[bytes, Path]) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _header(name: str) -> zipfile.ZipInfo:
    header = zipfile.ZipInfo(name, ZIP_EPOCH)
    header.external_attr = 0o644 << 16
    return header


def files_of(folder: Path, prefix: str) -> Dict[str, Path]:
    """Return member name -> file for everything below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {f"{prefix}/{file.relative_to(folder).as_posix()}": file for file in files}


def entry(name: str, content: Union[bytes, Path]) -> FileEntry:
    """Return the manifest's record of a member."""
    data = _bytes_of(content)
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest())


def pack_selftests(scenes: Sequence[Tuple[Array, Array]]) -> Dict[str, bytes]:
    """Return member name -> npz for scenes of image (H, W, 3) and classes (H, W), uint8."""
    packed = {}
    for index, (image_HW3, classes_HW) in enumerate(scenes):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in (("image", image_HW3), ("classes", classes_HW)):
                part = io.BytesIO()
                np.lib.format.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(_header(f"{name}.npy"), part.getvalue(), zipfile.ZIP_DEFLATED)
        packed[f"selftest/{index}.npz"] = buffer.getvalue()
    return packed


def read_members(path: Path) -> Tuple[Manifest, Dict[str, bytes]]:
    """Return what an existing bundle holds, every hash verified; see open_bundle for errors."""
    with open_bundle(path) as bundle:
        return bundle.manifest, {name: bundle.read(name) for name in bundle.entries}
