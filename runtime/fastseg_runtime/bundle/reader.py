"""Read a bundle, NAME.fastseg: a zip of network files with a manifest that holds their hashes.

docs/bundle.md describes the format. Nothing in a bundle is trusted before it was checked, and
nothing is ever unpickled.
"""

import hashlib
import io
import os
import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Dict, List, Optional, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.terminal import is_plain
from fastseg_runtime.bundle.file_kind import UNKNOWN, file_kind
from fastseg_runtime.bundle.manifest import Artifact, FileEntry, Manifest, ManifestError

MANIFEST = "manifest.json"
SUFFIX = ".fastseg"
NATURAL_SCENES = 2  # of a self-test, at its beginning; hard ones follow
Scene = Tuple[Array, Array]  # image (H, W, 3) uint8 RGB, classes (H, W) uint8
MAX_NAME = 500  # characters of a member's path: more than file systems take
_MANIFEST_MAX_BYTES = 16 << 20
_SCENES_MAX_BYTES = 512 << 20  # together: six scenes of 4096x2160 take 212 MB
# What zipfile and numpy raise for damaged files, besides their own errors.
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
    OverflowError,
    KeyError,
)
_COPY_AGAIN = "copy the bundle again, or export it again with fastseg-export"


class BundleError(ValueError):
    """The file is no bundle, is damaged, or holds something that it must not."""


def open_bundle(path: Union[str, "os.PathLike[str]"]) -> "Bundle":
    """Open a bundle and check its manifest and the names and sizes of its members.

    Raises:
        FileNotFoundError: no such file.
        BundleError: not a bundle of a schema that is known here, or a damaged or hostile one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no bundle {path}; make one with fastseg-export")
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        kind = file_kind(path)
        told = f"({error})" if kind.startswith(("a zip", UNKNOWN)) else f"but {kind}"
        problem = f"is not a whole bundle {told}; {_COPY_AGAIN}"
        if path.suffix.lower() != SUFFIX:
            problem = f"is not a fastseg bundle; name a {SUFFIX} file, made by fastseg-export"
        raise BundleError(f"{path} {problem}") from error
    try:
        return Bundle(path, archive)
    except BaseException:
        archive.close()
        raise


class Bundle:
    """An open bundle; a context manager.

    Attributes:
        path: the file.
        manifest: what it says of itself.
        entries: its record of each member, by the member's path.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members = _checked_members(path, archive)
        self.manifest = self._read_manifest()
        listed = [entry for artifact in self.manifest.artifacts for entry in artifact.files]
        self.entries: Dict[str, FileEntry] = {}
        for entry in (*listed, *self.manifest.selftest):
            if self.entries.setdefault(entry.path, entry) != entry:
                raise BundleError(f"{path}: the manifest has two records of {entry.path}")
        for entry in self.entries.values():
            self._check_entry(entry)
        for artifact in self.manifest.artifacts:
            self._check_artifact(artifact)

    def read(self, member: str) -> bytes:
        """Return the bytes of a member that the manifest lists, verified by size and hash.

        Raises:
            BundleError: not listed, or damaged.
        """
        entry = self.entries.get(member)
        if entry is None:
            raise BundleError(f"{self.path}: its manifest lists no file {member!r}")
        content = self._read_raw(member)
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256.lower():
            raise BundleError(
                f"{self.path}: {member} has SHA-256 {found[:16]}..., its manifest says "
                f"{entry.sha256[:16]}...; {_COPY_AGAIN}"
            )
        return content

    def verify(self) -> None:
        """Raise BundleError if a listed file is damaged."""
        for member in self.entries:
            self.read(member)
        self.selftests()

    def artifact(self, target: str) -> Artifact:
        """Return the artifact of a target.

        Raises:
            BundleError: there is none; the message lists those there are.
        """
        for artifact in self.manifest.artifacts:
            if artifact.target == target:
                return artifact
        targets = ", ".join(a.target for a in self.manifest.artifacts) or "no artifact at all"
        raise BundleError(f"{self.path} has no target {target!r}; it has {targets}")

    def extract(self, target: str, directory: Union[str, "os.PathLike[str]"]) -> List[Path]:
        """Write the files of one target into a folder, all of them or none.

        They replace files of these names, and a folder (a Core ML package) that holds no others;
        a link is in the way.

        Returns:
            The files written, in the manifest's order.

        Raises:
            BundleError: no such target, damaged, or something else of that name is in the way.
        """
        artifact, directory = self.artifact(target), Path(directory)
        names = {entry.path: inner_name(entry.path) for entry in artifact.files}
        directory.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".fastseg-", dir=directory))
        try:
            for member, name in names.items():
                file = staging / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.read(member))
            tops = sorted(staging.iterdir())
            for top in tops:
                if _is_in_the_way(directory / top.name, top):
                    raise BundleError(
                        f"{directory / top.name} exists; remove it, or extract to another folder"
                    )
            aside = tempfile.mkdtemp(dir=staging)
            for top in tops:
                _put(top, directory / top.name, Path(aside, top.name))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return [directory / name for name in names.values()]

    def selftests(self, count: Optional[int] = None) -> List[Scene]:
        """Return scenes of the self-test: image (H, W, 3) RGB, classes (H, W), both uint8.

        Args:
            count: the first so many; None: all.

        Raises:
            BundleError: damaged, not such arrays, or ids that the manifest has no class for.
        """
        scenes: List[Scene] = []
        for entry in self.manifest.selftest[:count]:
            left = _SCENES_MAX_BYTES - sum(array.nbytes for scene in scenes for array in scene)
            scenes.append(self._scene(entry.path, left))
        return scenes

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def __enter__(self) -> "Bundle":
        """Return the bundle itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def _read_manifest(self) -> Manifest:
        info = self._members.get(MANIFEST)
        if info is None:
            raise BundleError(f"{self.path} is a zip without {MANIFEST}: not a fastseg bundle")
        if info.file_size > _MANIFEST_MAX_BYTES:
            raise BundleError(f"{self.path}: {MANIFEST} claims {info.file_size} bytes")
        try:
            return Manifest.from_json(self._read_raw(MANIFEST).decode("utf-8"))
        except (ManifestError, UnicodeDecodeError) as error:
            raise BundleError(f"{self.path}: {error}") from error

    def _read_raw(self, member: str) -> bytes:
        size = self._members[member].file_size
        try:
            with self._archive.open(member) as file:
                content = file.read(size)  # zipfile checks the CRC-32 at the end of the member
        except _DAMAGE as error:
            raise BundleError(f"{self.path}: {member}: {error}; {_COPY_AGAIN}") from error
        if len(content) != size:
            raise BundleError(f"{self.path}: {member} ends early; {_COPY_AGAIN}")
        return content

    def _check_entry(self, entry: FileEntry) -> None:
        problem = _name_problem(entry.path)
        if problem:
            raise BundleError(f"{self.path}: its manifest lists {entry.path!r}, {problem}")
        info = self._members.get(entry.path)
        if info is None:
            raise BundleError(f"{self.path}: {entry.path} is missing; {_COPY_AGAIN}")
        if info.file_size != entry.bytes:
            raise BundleError(
                f"{self.path}: {entry.path} has {info.file_size} bytes, its manifest says "
                f"{entry.bytes}; {_COPY_AGAIN}"
            )

    def _check_artifact(self, artifact: Artifact) -> None:
        paths = [entry.path for entry in artifact.files]
        # The entry of a Core ML package is the folder that its files are in.
        if not any(f"{path}/".startswith(f"{artifact.entry}/") for path in paths):
            raise BundleError(
                f"{self.path}: the entry of {artifact.target}, {artifact.entry!r}, is none of its "
                "files; export the bundle again"
            )
        if len({inner_name(path) for path in paths}) < len(set(paths)):
            raise BundleError(f"{self.path}: files of {artifact.target} have the same name")

    def _scene(self, member: str, most_bytes: int) -> Scene:
        content = self.read(member)
        try:
            image_HW3, classes_HW = _load_arrays(content, most_bytes)
        except Exception as error:  # MemoryError, zlib.error, tokenize.TokenError, ...
            raise BundleError(f"{self.path}: {member} is no self-test scene: {error}") from error
        fits = image_HW3.dtype == classes_HW.dtype == np.uint8 and image_HW3.shape[2:] == (3,)
        if not (fits and classes_HW.ndim == 2 and image_HW3.size and classes_HW.size):
            raise BundleError(
                f"{self.path}: {member}: expected uint8 image (H, W, 3) and classes (H, W), got "
                f"{image_HW3.dtype} {image_HW3.shape} and {classes_HW.dtype} {classes_HW.shape}"
            )
        largest, count = int(classes_HW.max()), len(self.manifest.classes)
        if largest >= count:
            raise BundleError(
                f"{self.path}: {member} holds class id {largest}, the manifest names {count} "
                "classes; export the bundle again"
            )
        return image_HW3, classes_HW


def _checked_members(path: Path, archive: zipfile.ZipFile) -> Dict[str, zipfile.ZipInfo]:
    """Return the members by name; refuse names and kinds that no bundle has."""
    members: Dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for info in archive.infolist():
        name = info.orig_filename
        problem = _name_problem(name)
        if stat.S_ISLNK(info.external_attr >> 16):
            problem = problem or "which is a symbolic link"
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            problem = problem or "which is compressed: members of a bundle are stored"
        if name.casefold() in seen:  # one file on a disk that ignores case
            problem = "which occurs twice"
        if problem:
            raise BundleError(f"{path}: refusing its member {name!r}, {problem}")
        seen.add(name.casefold())
        members[name] = info
    return members


def _name_problem(name: str) -> str:
    parts = name.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or ":" in name or "\\" in name:
        return "which could leave the folder it is extracted to"
    if not is_plain(name, MAX_NAME):
        return f"which holds control characters or is longer than {MAX_NAME}"
    return ""


def inner_name(member: str) -> str:
    """Return a member's path as extracted: "model.onnx" for "artifacts/cpu-int8/model.onnx"."""
    parts = PurePosixPath(member).parts
    return "/".join(parts[2:] if parts[0] == "artifacts" and len(parts) > 2 else parts)


def _is_in_the_way(place: Path, top: Path) -> bool:
    """Return whether more is lost where `top` takes a place than what it replaces."""
    if place.is_symlink() or (place.exists() and place.is_dir() != top.is_dir()):
        return True
    held = [path for path in place.rglob("*") if path.is_symlink() or not path.is_dir()]
    return any(path.is_symlink() or not (top / path.relative_to(place)).is_file() for path in held)


def _put(top: Path, place: Path, aside: Path) -> None:
    """Let a file or folder take a place; a folder there goes aside, and back if that fails."""
    replaces = top.is_dir() and place.exists()  # which no system replaces by a folder
    if replaces:
        os.replace(place, aside)
    try:
        os.replace(top, place)
    except OSError:
        if replaces:
            os.replace(aside, place)
        raise


def _load_arrays(content: bytes, most_bytes: int) -> Scene:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > most_bytes:
        raise ValueError(f"its arrays claim {size} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        image_HW3, classes_HW = arrays["image"], arrays["classes"]
    if not (isinstance(image_HW3, np.ndarray) and isinstance(classes_HW, np.ndarray)):
        raise ValueError("its members are no arrays")  # numpy gives their bytes then
    return image_HW3, classes_HW
