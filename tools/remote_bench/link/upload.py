"""Files go to the board by their hash: what is there is not sent again, what was cut goes on."""

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from remote_bench.link.session import Session

Progress = Callable[[int, int], None]  # bytes there, bytes in all
_CHUNK = 1 << 16


def upload(session: Session, file: BinaryIO, progress: Progress) -> str:
    """Bring a file into the board's store and return its SHA-256.

    It arrives under a temporary name, is hashed there, and only then gets its own; a half one that
    an earlier connection left is continued if it is the beginning of this file.

    Raises:
        Unreachable: the connection broke; what arrived waits for the next attempt.
        MissingRequirement: the board's disk is full.
    """
    size = file.seek(0, 2)
    sha256 = hash_prefix(file, size)
    offer = session.request("offer", sha256=sha256, size=size)
    have = int(offer["have"])
    if have == size and offer["prefix_sha256"] == sha256:
        progress(size, size)
        return sha256
    if offer["prefix_sha256"] != hash_prefix(file, have):
        session.request("restart", sha256=sha256)
        have = 0
    file.seek(have)
    session.received = 0
    while chunk := file.read(_CHUNK):
        session.send_frame("data", body=chunk, bytes=len(chunk))
        progress(have + session.received, size)
    session.request(
        "commit", on_wait=lambda: progress(have + session.received, size), sha256=sha256
    )
    return sha256


def hash_prefix(file: BinaryIO, count: int) -> str:
    """Return the SHA-256 of a file's first bytes in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()
