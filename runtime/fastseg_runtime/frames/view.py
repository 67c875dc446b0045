"""The run in a browser: a page that shows each newest frame as it comes, and what it costs.

A viewer pulls; the run gives it a reference to the newest frame and waits for nobody. Pictures are
encoded once for all viewers, and not at all without one.
"""

import json
import logging
import pkgutil
import secrets
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Callable, Deque, Dict, Optional, Tuple
from urllib.parse import urlsplit

import numpy as np

from fastseg_runtime.arrays.command import UsageError
from fastseg_runtime.arrays.image import encode_class_map, encode_rgb, opencv
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.stats import STAGES
from fastseg_runtime.bundle.manifest import palette
from fastseg_runtime.frames.stream import StreamFrame

log = logging.getLogger(__name__)
_PICTURES_PER_S = 15  # what an eye follows; more would cost the run its time
_WIDEST = 960  # pixels of a picture that is sent
_QUALITY = 70
_LOOK_EVERY_S = 1.0  # whether a viewer has left who gets no new picture
_MAX_VIEWERS = 16  # connections at a time, of whatever kind
_HIDDEN = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class View:
    """Serves the newest frame of a session at `url`; a context manager.

    Args:
        session: whose frames come.
        address: "HOST:PORT" to listen on; without a port, any that is free.
        folder: where a click saves frame and mask.

    Raises:
        UsageError: the address cannot be listened on.
    """

    def __init__(self, session: Any, address: str, folder: Path) -> None:
        self.session, self.folder, self.token = session, folder, secrets.token_urlsafe(16)
        self.newest: Optional[StreamFrame] = None
        self.paused: Optional[StreamFrame] = None
        self.viewers, self.jpeg, self.number = 0, b"", 0
        self.changed = threading.Condition()
        self._times_s: Deque[float] = deque(maxlen=60)
        self._closed = threading.Event()
        try:
            parts = urlsplit(f"//{address}")
            self.host = parts.hostname or "127.0.0.1"
            self._server = BoundedServer(self.host, parts.port or 0, partial(_Handler, self))
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"--view {address}: {error}; write HOST or HOST:PORT") from error
        shown = f"[{self.host}]" if ":" in self.host else self.host
        if self.host in ("0.0.0.0", "::"):  # all addresses of this machine
            shown = socket.gethostname()
        self.url = f"http://{shown}:{self._server.server_address[1]}/{self.token}/"

    def __enter__(self) -> "View":
        """Start to serve."""
        for work in (partial(self._server.serve_forever, 0.1), self._encode):
            threading.Thread(target=work, daemon=True).start()
        log.info("see it at %s", self.url)
        return self

    def __exit__(self, *error: object) -> None:
        """Stop; viewers that are slow are left to themselves."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def show(self, frame: StreamFrame) -> None:
        """Take the newest frame; returns at once."""
        self._times_s.append(time.monotonic())
        self.newest = frame

    def state(self) -> Dict[str, Any]:
        """Return what the page shows beside the picture."""
        frame, times_s = self.newest, list(self._times_s)
        if frame is None:
            return {"frames": 0, "figures": [["frames", "none yet"]], "shares": []}
        passed_s = time.monotonic() - times_s[0]
        fps = (len(times_s) - 1) / passed_s if passed_s > 0 else 0.0
        stages = self.session.newest_stages_s
        figures = [["FPS", f"{fps:.1f}"]]
        figures += [[name, f"{1e3 * time_s:.1f} ms"] for name, time_s in zip(STAGES, stages)]
        figures += [["frame", str(frame.index)], ["dropped", str(frame.dropped)]]
        if frame.confidence is not None:
            figures.append(["mean confidence", f"{frame.confidence.mean() / 255:.0%}"])
        if self.session.deadline_ms is not None:
            figures.append([f"later than {self.session.deadline_ms:g} ms", str(frame.late)])
        counts = np.bincount(frame.classes.ravel(), minlength=256) / frame.classes.size
        found = zip(self.session.classes, counts.tolist())
        shares = [[entry.name, share, entry.color] for entry, share in found if share]
        shares.sort(key=lambda row: -row[1])
        return {"frames": frame.index + 1, "figures": figures, "shares": shares}

    def pause(self) -> str:
        """Hold the picture and save its frame and mask, or go on; return what was done."""
        if self.paused is not None:
            self.paused = None
            return "it goes on"
        frame = self.newest
        if frame is None:
            return "no frame yet"
        self.paused = frame
        stem = self.folder / f"view-{time.strftime('%Y%m%d-%H%M%S')}-{frame.index}"
        order = -1 if self.session.color == "bgr" else 1
        picture, mask = stem.with_suffix(".png"), stem.with_suffix(".mask.png")
        write_file(picture, encode_rgb(np.ascontiguousarray(frame.frame[..., ::order])))
        write_file(mask, encode_class_map(frame.classes, palette(self.session.classes)))
        return f"paused; saved {picture} and {mask}; a click goes on"

    def wait(self, seen: int) -> Optional[Tuple[int, bytes]]:
        """Return number and bytes of the picture after `seen`; None at the end.

        Where none comes for _LOOK_EVERY_S, those of the newest, which were seen.
        """

        def is_due() -> bool:
            return self.number > seen or self._closed.is_set()

        with self.changed:
            self.changed.wait_for(is_due, _LOOK_EVERY_S)
            return None if self._closed.is_set() else (self.number, self.jpeg)

    def _encode(self) -> None:
        shown: Any = None
        while not self._closed.wait(1 / _PICTURES_PER_S):
            frame = self.paused or self.newest
            if self.viewers and frame is not None and frame is not shown:
                shown, jpeg = frame, self._jpeg(frame.picture)
                with self.changed:
                    self.number, self.jpeg = self.number + 1, jpeg
                    self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def _jpeg(self, picture_HW3: Any) -> bytes:
        cv2 = opencv()
        assert cv2 is not None  # the frames came by it
        height, width = picture_HW3.shape[:2]
        if width > _WIDEST:
            size = (_WIDEST, max(1, height * _WIDEST // width))
            picture_HW3 = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
        if self.session.color == "rgb":
            picture_HW3 = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode(".jpg", picture_HW3, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        return bytes(encoded)


def is_this_machine(host: str, served: str) -> bool:
    """Return whether a Host header names this machine, not what somebody points here.

    Args:
        host: the header.
        served: the name or address that is listened on.
    """
    own = socket.gethostname().lower()
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("localhost", served.lower(), own, f"{own}.local") or bool(ip_address(name))
    return False


class BoundedServer(ThreadingHTTPServer):
    """Answers a few connections at a time, each in a thread, and turns further ones away.

    Args:
        host: name or address to listen on.
        port: 0 for any that is free.
        handler: what BaseHTTPRequestHandler is, its own arguments bound.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)
        self._free = threading.BoundedSemaphore(_MAX_VIEWERS)

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "fastseg", self.server_address[1]

    def process_request_thread(self, *request: Any) -> None:
        """Answer, or close the connection where too many are open."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request_thread(*request)
            finally:
                self._free.release()
        else:
            self.shutdown_request(request[0])

    def handle_error(self, *request: Any) -> None:
        """Say nothing of viewers that went away."""


class TimedHandler(BaseHTTPRequestHandler):
    """Gives up who is silent for `timeout` s, or takes longer to ask, however the bytes dribble."""

    timeout = 10.0

    def handle_one_request(self) -> None:
        """Answer a request, which has to be there in time."""
        self._late = threading.Timer(self.timeout, self._give_up)
        self._late.daemon = True
        self._late.start()
        try:
            super().handle_one_request()
        finally:
            self._late.cancel()

    def parse_request(self) -> bool:
        """Read the headers; the answer may take longer, for slow viewers."""
        try:
            return super().parse_request()
        finally:
            self._late.cancel()

    def _give_up(self) -> None:
        with suppress(OSError):  # TLS or not, so that its thread wakes
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)


class _Handler(TimedHandler):
    server_version, sys_version = "fastseg", ""

    def __init__(self, view: View, *request: Any) -> None:
        self._view = view
        super().__init__(*request)

    def do_GET(self) -> None:
        name = self._name()
        if name == "":
            nonce = secrets.token_urlsafe(16)
            page = pkgutil.get_data("fastseg_runtime.frames", "view.html") or b""
            policy = "default-src 'none'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
            policy += f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
            page = page.replace(b"NONCE", nonce.encode())
            self._send(page, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif name == "state":
            self._send_json(self._view.state())
        elif name == "stream":
            self._stream()
        elif name is not None:
            self.send_error(404)

    def do_POST(self) -> None:
        name = self._name()
        if name == "pause":
            try:
                said = self._view.pause()
            except OSError as error:
                said = f"not saved: {error}"
            self._send_json({"said": said})
        elif name is not None:
            self.send_error(404)

    def _name(self) -> Optional[str]:
        """Return what is asked for behind the token; None, after an error, for strangers."""
        if not is_this_machine(self.headers.get("Host", ""), self._view.host):
            self.send_error(421, "not a name of this machine; ask by its IP address")
            return None
        token, slash, name = self.path.partition("?")[0][1:].partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self._view.token.encode()):
            self.send_error(404)
            return None
        return name

    def _stream(self) -> None:
        view, seen = self._view, 0
        self._head("multipart/x-mixed-replace; boundary=frame", {})
        with view.changed:
            view.viewers += 1
        try:
            self.wfile.write(b"--frame\r\n")
            while newest := view.wait(seen):
                if newest[0] == seen:  # paused, or the camera stalls
                    if self._has_left():
                        break
                    continue
                seen, jpeg = newest
                # The boundary at once: browsers show a part when they see its end.
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n--frame\r\n")
        finally:
            with view.changed:
                view.viewers -= 1

    def _has_left(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_json(self, table: Dict[str, Any]) -> None:
        self._send(json.dumps(table).encode(), "application/json", {})

    def _send(self, content: bytes, kind: str, more: Dict[str, str]) -> None:
        self._head(kind, {"Content-Length": str(len(content)), **more})
        self.wfile.write(content)

    def _head(self, kind: str, more: Dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, **_HIDDEN, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""
