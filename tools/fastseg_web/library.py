"""onnxruntime-web, the engine in the browser: a pinned package of npm, in the cache of who asked.

Nothing fetches it but fetch(), and nothing of it is served whose hash is not the one below.
"""

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from fastseg_runtime.arrays.shared_files import cache_folder, write_file

VERSION = "1.30.0"
NAME = f"onnxruntime-web-{VERSION}"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/{NAME}.tgz"
PACKAGE_BYTES = 33_106_585
# As the registry states it, in `dist.integrity`.
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
LICENCE = "MIT"
ENTRY = "ort.wasm.min.mjs"
# What the page needs of it: WASM with SIMD and threads. WebGPU would be another 27 MB.
FILES = {
    ENTRY: "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
KEPT_MB, FETCHED_MB = 14, round(PACKAGE_BYTES / 1e6)
WEIGHT = f"licence {LICENCE}, {FETCHED_MB} MB to fetch, {KEPT_MB} MB of it kept"
_SILENT_S = 30.0


class LibraryError(Exception):
    """The engine for the browser is not here, or cannot be had."""


def folder() -> Path:
    """Return where the files are kept."""
    return cache_folder() / "web" / NAME


def read() -> dict[str, bytes]:
    """Return the files by name, each of the hash that is pinned.

    Raises:
        LibraryError: one is not there, or another; the message says what fetches them.
    """
    files = {name: _content(folder() / name) for name in FILES}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise LibraryError(
                f"{name} of {NAME} is {'damaged' if content else 'not'} in {folder()}; fetch it "
                f"with: fastseg-web --fetch ({WEIGHT})"
            )
    return files


def fetch(tell: Callable[[str], None]) -> None:
    """Fetch the package, unless it is here, and keep what the page needs of it.

    Raises:
        LibraryError: it cannot be fetched, or is another than the pinned one; nothing is kept.
    """
    try:
        read()
    except LibraryError:
        tell(f"fetching {URL}: {WEIGHT} in {folder()}")
    else:
        tell(f"{NAME} is in {folder()}")
        return
    try:
        with urlopen(URL, timeout=_SILENT_S) as answer:
            package = answer.read(PACKAGE_BYTES + 1)
    except (OSError, HTTPException) as error:
        raise LibraryError(
            f"{URL} cannot be fetched: {error}; try again with a network, or copy {folder()} from "
            "a machine that has it"
        ) from error
    found = base64.b64encode(hashlib.sha512(package).digest()).decode()
    if found != SHA512:
        raise LibraryError(
            f"{URL} gave another package than the one that is pinned: SHA-512 {found[:16]}..., "
            f"expected {SHA512[:16]}...; nothing of it was kept"
        )
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the hash says what is in it
            write_file(folder() / name, member.read())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
