"""What is served of a bundle: a table of what is in memory, nothing that a path could reach."""

import dataclasses
import json
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import numpy as np
from fastseg_runtime.arrays.command import UsageError
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.contract import CONTRACT, contract
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.bundle.reader import Bundle, BundleError
from fastseg_runtime.engines.selection import Processor, made_for, rank
from fastseg_runtime.engines.selftest import required_agreement
from fastseg_runtime.frames.view import BoundedServer, TimedHandler, is_this_machine

from fastseg_web import library

ENGINE = "onnxruntime"  # whose artifacts onnxruntime-web opens
# Int8 is no faster there than float (docs/platforms/web.md), so float, which is exact, comes first.
PROCESSOR = Processor(arm=True, int8_dot_product=False)
MODEL, SELFTEST = "model.onnx", "selftest"
BINARY = "application/octet-stream"
KINDS = {".mjs": "text/javascript", ".wasm": "application/wasm"}
HTML, JSON = "text/html; charset=utf-8", "application/json"
EVERYWHERE = "0.0.0.0", "::"  # all addresses of this machine
_CHUNK = 1 << 16  # bytes at a time: the limit is of each
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' 'nonce-NONCE' 'wasm-unsafe-eval'",
    "worker-src": "'self'",  # the threads of the engine
    "connect-src": "'self'",
    "style-src": "'nonce-NONCE'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    # Both isolate the page from other sites, without which no browser gives WASM its threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Content:
    """One answer; `fixed` of what is the same for all bundles, and may be kept by browsers."""

    kind: str
    body: bytes
    fixed: bool = False


def choose_artifact(bundle: Bundle, target: str | None = None) -> Artifact:
    """Return the artifact that a browser runs: the one of a target, else the best.

    Raises:
        BundleError: there is none; the message says what to export.
    """
    if target is not None:
        bundle.artifact(target)  # or a message with those there are
    ranked = rank(bundle.manifest, PROCESSOR, target=target, device="cpu")
    found = [one.artifact for one in ranked if made_for(one.artifact) == ENGINE == one.backend]
    if found:
        return found[0]
    there = [f"{a.target} ({made_for(a)})" for a in bundle.manifest.artifacts]
    named = ", ".join(there) if target is None else f"for {made_for(bundle.artifact(target))}"
    raise BundleError(
        f"{bundle.path}: a browser runs what was made for {ENGINE}, and "
        f"{f'{target} is' if target else 'there is'} {named or 'nothing'}; add one: fastseg-export "
        f"NETWORK --target cpu-fp32 -o {bundle.path.name}"
    )


def contents(bundle: Bundle, artifact: Artifact, files: Mapping[str, bytes]) -> dict[str, Content]:
    """Return what is served, by path.

    Args:
        bundle: open; may be closed afterwards.
        artifact: one of choose_artifact().
        files: of the library, by name.

    Raises:
        BundleError: damaged, or a network whose weights are in files of their own.
    """
    model = bundle.read(artifact.entry)
    check_onnx(model, artifact.entry)
    scenes = bundle.selftests()
    table = contract(bundle.manifest, artifact)
    table["engine"] = f"/{library.NAME}/{library.ENTRY}"
    table["selftest"] = [
        {"width": image.shape[1], "height": image.shape[0],
         "required": required_agreement(artifact, index)}
        for index, (image, _) in enumerate(scenes)
    ]  # fmt: skip
    page = resources.files("fastseg_web").joinpath("page.html").read_bytes()
    served = {
        "/": Content(HTML, page),
        f"/{CONTRACT}": Content(JSON, json.dumps(table).encode()),
        f"/{MODEL}": Content(BINARY, model),
    }
    for index, scene in enumerate(scenes):
        served[f"/{SELFTEST}/{index}"] = Content(BINARY, _scene(*scene))
    for name, content in files.items():
        kind = KINDS[Path(name).suffix]
        served[f"/{library.NAME}/{name}"] = Content(kind, content, fixed=True)
    return served


def _scene(image_HW3: Array, classes_hw: Array) -> bytes:
    """Return a scene as the page takes it: RGBA, then PyTorch's ids of each pixel."""
    height, width = image_HW3.shape[:2]
    rgba_HW4 = np.dstack([image_HW3, np.full((height, width), 255, np.uint8)])
    return rgba_HW4.tobytes() + resize_nearest(classes_hw, width, height).tobytes()


class PageServer:
    """Listens at `url`, and answers once serve() is called; a context manager.

    Args:
        served: by path.
        host: name or address to listen on.
        port: 0 for any that is free.
        tls: a certificate with its key; None: plain HTTP.

    Raises:
        UsageError: the address cannot be listened on, or is empty.
    """

    def __init__(
        self, served: Mapping[str, Content], host: str, port: int, tls: ssl.SSLContext | None
    ) -> None:
        if not host:  # a variable that was not set; to a socket it means all addresses
            raise UsageError(
                "--host is empty; expected an address of this machine: 127.0.0.1, or 0.0.0.0 for "
                "all of them"
            )
        # A certificate names its host, plain HTTP does not: there the Host header is looked at.
        handler = partial(_Handler, served, None if tls else host)
        try:
            self._server = BoundedServer(host, port, handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {host}, port {port}: {error}; choose others with --host and "
                "--port (0: any that is free)"
            ) from error
        if tls:
            # The handshake comes with the first byte that is read, in the thread of that browser.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        bound, self.port = self._server.server_address[:2]  # "0" is 0.0.0.0, too
        shown = _own_address(bound) if bound in EVERYWHERE else host
        shown = f"[{shown}]" if ":" in shown else shown
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/"
        # Whether browsers give it a camera; a forwarded port is this machine's own again.
        self.is_secure = tls is not None or is_loopback(host)

    def serve(self) -> None:
        """Answer until a signal raises something, or another thread calls stop()."""
        self._server.serve_forever(0.1)

    def stop(self) -> None:
        """Let serve(), which runs in another thread, return."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        """Return the server itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Listen no more; browsers that are slow are left to themselves."""
        self._server.server_close()


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's own, where nobody else listens."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _own_address(host: str) -> str:
    """Return the address under which others see this machine; no packet is sent for it."""
    family, other = (
        (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 9))
        except OSError:  # no network
            return socket.gethostname()
        return str(probe.getsockname()[0])


class _Handler(TimedHandler):
    server_version, sys_version = "fastseg", ""

    def __init__(self, served: Mapping[str, Content], host: str | None, *request: Any) -> None:
        self._served, self._host = served, host
        super().__init__(*request)

    def do_GET(self) -> None:
        content = self._find()
        if content is not None:
            body = memoryview(content.body)
            for start in range(0, len(body), _CHUNK):
                self.wfile.write(body[start : start + _CHUNK])

    def do_HEAD(self) -> None:
        self._find()

    def _find(self) -> Content | None:
        """Send the headers of what is asked for and return it; None after an error."""
        if self._host is not None and not is_this_machine(self.headers.get("Host", ""), self._host):
            self.send_error(421, "not a name of this machine; ask by its IP address")
            return None
        content = self._served.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return None
        headers = {**_HEADERS, "Cache-Control": "max-age=604800" if content.fixed else "no-store"}
        if content.kind == HTML:
            nonce = secrets.token_urlsafe(16)
            content = dataclasses.replace(
                content, body=content.body.replace(b"NONCE", nonce.encode())
            )
            policy = "; ".join(f"{name} {sources}" for name, sources in _POLICY.items())
            headers["Content-Security-Policy"] = policy.replace("NONCE", nonce)
        self.send_response(200)
        self.send_header("Content-Type", content.kind)
        self.send_header("Content-Length", str(len(content.body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        return content

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""
