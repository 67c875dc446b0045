"""A network camera of its own: Motion JPEG over HTTP, as cheap ones send it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np


def picture(value: int) -> Any:
    return np.full((48, 64, 3), value, np.uint8)


class HttpCamera(ThreadingHTTPServer):
    """Sends `count` pictures to each that connects, then hangs up; or goes silent."""

    daemon_threads = True

    def __init__(self, count: int, silent_s: float = 0.0, pause_s: float = 0.02) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.count, self.silent_s, self.pause_s = count, silent_s, pause_s
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/video"


class _Handler(BaseHTTPRequestHandler):
    server: HttpCamera

    def do_GET(self) -> None:
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for index in range(self.server.count):
            jpeg = cv2.imencode(".jpg", picture(100 + index % 100))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(self.server.pause_s)
        time.sleep(self.server.silent_s)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def http_camera(count: int, **wishes: float) -> Iterator[HttpCamera]:
    with HttpCamera(count, **wishes) as camera:
        threading.Thread(target=camera.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield camera
        finally:
            camera.shutdown()
