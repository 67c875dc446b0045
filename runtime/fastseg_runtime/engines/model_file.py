"""Whatever a user names as a model, opened: a bundle, a shipped network, or a bare file."""

import hashlib
import shutil
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import List, Optional, Union

from fastseg_runtime.bundle.file_kind import (
    BUNDLE,
    ONNX,
    PICKLE,
    SAFETENSORS,
    TORCH,
    UNKNOWN,
    file_kind,
)
from fastseg_runtime.bundle.manifest import Artifact, FileEntry, Manifest
from fastseg_runtime.bundle.reader import SUFFIX, Bundle, Scene, inner_name, open_bundle
from fastseg_runtime.engines.engine import ENGINES, Engine, load
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, SAYS_ITSELF, OwnFile

# Suffix of a bare file -> the engine that opens it.
BARE = {suffix: engine for engine in ENGINES.values() for suffix in engine.bare}
# What a file holds, whatever its name says -> the suffix that it should have.
_SUFFIX_OF = {
    BUNDLE: SUFFIX,
    ONNX: ".onnx",
    SAFETENSORS: ".safetensors",
    TORCH: ".pth",
    PICKLE: ".pth",
}


class ModelFile:
    """An opened model: its manifest, and its artifacts' bytes on demand."""

    def __init__(self, path: Path, manifest: Manifest, bundle: Optional[Bundle]) -> None:
        self.path, self.manifest, self.bundle = path, manifest, bundle
        self._folder: Optional[Path] = None

    def read(self, member: str) -> bytes:
        """Return the bytes of one of an artifact's files."""
        return Path(member).read_bytes() if self.bundle is None else self.bundle.read(member)

    def locate(self, artifact: Artifact) -> Path:
        """Return the path of an artifact's entry on disk, where a bundle unpacks it."""
        if self.bundle is None:
            return Path(artifact.entry)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fastseg-"))
        # A folder of its own: the target's name is whatever the bundle says.
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self.bundle.extract(artifact.target, folder)
        return folder / inner_name(artifact.entry)

    def selftests(self, count: Optional[int] = None) -> List[Scene]:
        """Return the bundle's first self-test scenes; a bare file has none."""
        return [] if self.bundle is None else self.bundle.selftests(count)

    def close(self) -> None:
        """Close the bundle and remove what was unpacked."""
        if self.bundle is not None:
            self.bundle.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_model(path: Union[str, Path], own_file: OwnFile = NOTHING_SAID) -> ModelFile:
    """Open a model by what it holds, or by its name if it ships.

    Args:
        path: the file, or the name.
        own_file: what is said of an ONNX file of others.

    Raises:
        FileNotFoundError: no such file.
        BundleError: a damaged or foreign bundle, or a bare file that names others.
        ImportError: a bare file, and the library that reads it is absent.
        ValueError: a bare file without what a session needs.
    """
    path = named_file(path)
    suffix = path.suffix.lower()
    if path.is_file():
        kind = file_kind(path)
        if suffix in BARE and kind not in (*_SUFFIX_OF, UNKNOWN):
            raise ValueError(
                f"{path} is no {BARE[suffix].bare[suffix]} that loads here, but {kind}"
            )
        suffix = _SUFFIX_OF.get(kind, suffix)
    elif suffix in BARE:
        raise FileNotFoundError(f"no model {path}; expected *{SUFFIX}, {', *'.join(BARE)}")
    if own_file != NOTHING_SAID and suffix != ".onnx":
        raise ValueError(f"{path} {SAYS_ITSELF}")
    if suffix not in BARE:
        bundle = open_bundle(path)
        return ModelFile(path, bundle.manifest, bundle)
    engine = BARE[suffix]
    describe = load(f"{engine.location.partition(':')[0]}:describe")
    manifest: Manifest = describe(path, own_file) if suffix == ".onnx" else describe(path)
    artifact = _bare(path, engine)
    for known in manifest.artifacts:
        artifact = replace(artifact, files=(*artifact.files, *known.files), extra=known.extra)
    return ModelFile(path, replace(manifest, artifacts=(artifact,)), None)


def named_file(name: Union[str, Path]) -> Path:
    """Return the file that a user names; FileNotFoundError for a name that ships nowhere."""
    path = Path(name)
    return path if path.suffix or path.exists() else find_shipped(str(path))


def _bare(path: Path, engine: Engine) -> Artifact:
    content = path.read_bytes()
    entry = FileEntry(str(path), len(content), hashlib.sha256(content).hexdigest())
    precision = "int8" if b"DequantizeLinear" in content else "fp32"
    requires = {"backend": engine.name}
    return Artifact(path.name, engine.formats[0], precision, str(path), (entry,), requires=requires)


# The first that ships is taken where none is named: the best score so far comes first.
PREFERRED = ("lite-camvid", "small-camvid", "base-camvid", "nano-camvid", "nano-synthetic")


def find_shipped(name: str = "") -> Path:
    """Return the checkpoint of a shipped network, the preferred one unless named.

    Raises:
        FileNotFoundError: it is not here; the message says what to name instead.
    """
    package = find_spec("fastseg")  # looks for it without importing it
    if package is not None and package.origin:
        for candidate in [name] if name else PREFERRED:
            path = Path(package.origin).parent / "weights" / f"{candidate}.safetensors"
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{name or 'no bundle named'}: no such file, and no network to take instead; name a bundle "
        "made by fastseg-export. Networks ship with a checkout of fastseg: pip install -e .[train]"
    )
