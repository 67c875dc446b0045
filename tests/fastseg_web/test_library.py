"""The engine for the browser: fetched when asked to, of the pinned hash or not at all."""

import base64
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastseg_web import library
from fastseg_web.library import LibraryError


def package(files: dict[str, bytes]) -> bytes:
    """An npm package as its registry gives it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


PACKAGE = package({**{name: name.encode() for name in library.FILES}, "more.js": b"more"})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A registry whose answer is the first of a list, pinned as PACKAGE."""
    answers = [PACKAGE]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answers[0])))
            self.end_headers()
            self.wfile.write(answers[0])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "URL", f"http://127.0.0.1:{server.server_address[1]}/web.tgz")
    monkeypatch.setattr(library, "PACKAGE_BYTES", len(PACKAGE))
    digest = hashlib.sha512(PACKAGE).digest()
    monkeypatch.setattr(library, "SHA512", base64.b64encode(digest).decode())
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in library.FILES}
    monkeypatch.setattr(library, "FILES", hashes)
    yield answers
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("registry")
def test_what_is_fetched_is_kept_and_nothing_else_of_the_package(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(LibraryError, match="fastseg-web --fetch \\(licence MIT, 33 MB to fetch"):
        library.read()
    library.fetch(said.append)
    assert library.read() == {name: name.encode() for name in library.FILES}
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == sorted(library.FILES)
    (line,) = said
    assert "licence MIT" in line and "MB" in line and str(tmp_path) in line


def test_what_is_here_is_not_fetched_again(registry: list[bytes]) -> None:
    library.fetch(print)
    registry[0] = b"gone"
    library.fetch(print)
    assert library.read()


@pytest.mark.parametrize(
    "other",
    [b"", b"<html>", PACKAGE[:-1], PACKAGE + b"\0", package({"../../../escaped": b"x"})],
    ids=["nothing", "page", "short", "long", "other"],
)
def test_another_package_than_the_pinned_one_leaves_nothing(
    registry: list[bytes], other: bytes, tmp_path: Path
) -> None:
    registry[0] = other
    with pytest.raises(LibraryError, match="another package .* nothing of it was kept"):
        library.fetch(print)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("registry")
def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "URL", "http://127.0.0.1:9/web.tgz")
    with pytest.raises(LibraryError, match="cannot be fetched: .*refused"):
        library.fetch(print)


@pytest.mark.usefixtures("registry")
def test_a_damaged_file_is_not_served_and_fetching_mends_it() -> None:
    library.fetch(print)
    (library.folder() / library.ENTRY).write_bytes(b"alert(1)")
    with pytest.raises(LibraryError, match=f"{library.ENTRY} .* is damaged in"):
        library.read()
    library.fetch(print)
    assert library.read()[library.ENTRY] == library.ENTRY.encode()
