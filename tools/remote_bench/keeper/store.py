"""Files from the workstation, by the SHA-256 of their content.

A file comes under a temporary name, is checked, and is renamed: what has its final name is whole.
A cut upload leaves its `.part`, and the next one goes on from there.
"""

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from typing import Dict, List, Optional

from .wire import Refusal

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MARGIN_BYTES = 8 << 20  # of the disk that we leave free


class Store:
    """The folder `store/` of our folder, and `sites/` beside it."""

    def __init__(self, ours: str) -> None:
        self._folder = os.path.join(ours, "store")
        self._sites = os.path.join(ours, "sites")
        self._part: Optional[int] = None

    def offer(self, sha256: str, size: int) -> Dict[str, object]:
        """Prepare for a file; return {"have", "prefix_sha256"}: the bytes that are here already.

        Raises:
            Refusal: the disk has no room for the rest.
        """
        path = self._path(sha256)
        os.makedirs(self._folder, 0o700, exist_ok=True)
        if os.path.exists(path) and hash_file(path) == sha256:
            return {"have": size, "prefix_sha256": sha256}
        have = os.path.getsize(path + ".part") if os.path.exists(path + ".part") else 0
        have = have if have <= size else 0
        require_space(self._folder, size - have)
        self._open(path, resume=have > 0)
        return {"have": have, "prefix_sha256": hash_file(path + ".part")}

    def restart(self, sha256: str) -> None:
        """Begin again: what is here is not the beginning of that file."""
        self._open(self._path(sha256), resume=False)

    def _open(self, path: str, resume: bool) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if resume else os.O_TRUNC)
        self._part = os.open(path + ".part", flags, 0o600)

    def write(self, content: bytes) -> None:
        """Add bytes to the file that was offered; what follows a failure is dropped."""
        if self._part is None:
            return
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._part, view) :]
        except OSError:  # the disk is full: make room for others
            os.ftruncate(self._part, 0)
            self.close()
            raise

    def commit(self, sha256: str) -> None:
        """Check the whole file and give it its name.

        Raises:
            Refusal: the content is another; it is deleted.
        """
        self.close()
        path = self._path(sha256)
        if hash_file(path + ".part") != sha256:
            os.unlink(path + ".part")
            raise Refusal("hash", f"the upload of {sha256[:12]} arrived damaged; run it again")
        os.replace(path + ".part", path)

    def close(self) -> None:
        """Let go of a file that is half here."""
        if self._part is not None:
            os.close(self._part)
            self._part = None

    def place(self, sha256: str, target: str) -> None:
        """Make a stored file appear under another path of the same disk."""
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        try:
            os.link(self._path(sha256), target)
        except OSError:  # FAT and some network disks have no hard links
            shutil.copyfile(self._path(sha256), target)

    def unpack(self, sha256: str, folder: str) -> None:
        """Unpack a stored zip into a folder; zipfile keeps every name inside it."""
        with zipfile.ZipFile(self._path(sha256)) as archive:
            require_space(self._folder, sum(entry.file_size for entry in archive.infolist()))
            archive.extractall(folder)

    def site(self, wheels: List[str]) -> str:
        """Unpack wheels side by side, once; return the folder that goes on sys.path."""
        name = hashlib.sha256(" ".join(wheels).encode("ascii")).hexdigest()[:16]
        path = os.path.join(self._sites, name)
        if not os.path.isdir(path):
            os.makedirs(self._sites, 0o700, exist_ok=True)
            half = tempfile.mkdtemp(prefix="half-", dir=self._sites)
            try:
                for wheel in wheels:
                    self.unpack(wheel, half)
                os.rename(half, path)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        return path

    def _path(self, sha256: str) -> str:
        if not _SHA256.fullmatch(sha256):
            raise Refusal("name", f"expected a SHA-256, got {sha256!r:.80}")
        return os.path.join(self._folder, sha256)


def hash_file(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: str, needed: int) -> None:
    """Raise a Refusal where the disk of a folder has no room for so many bytes."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed + _MARGIN_BYTES:
        raise Refusal(
            "disk_full",
            f"the disk of {folder} has {free / 1e6:.0f} MB free, {needed / 1e6 + 8:.0f} MB are "
            "needed: free some, or choose another disk with --folder",
        )
