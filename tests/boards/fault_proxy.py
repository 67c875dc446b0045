"""A TCP proxy with faults: cut after so many bytes, freeze, delay, a slow link. Pure Python."""

import contextlib
import queue
import socket
import threading
import time

_CHUNK = 4096
_MOST_WAITING = 16  # chunks on their way: backpressure as of a small buffer


class FaultProxy:
    """Forwards 127.0.0.1:`port` to another port; its attributes may change while it runs.

    Attributes:
        cut_after: bytes from the client until both ends are closed.
        cut_at: when that came to pass, s, monotonic.
        frozen: nothing is forwarded, and nothing is closed.
        delay_s: each way.
        bytes_per_s: each way.
    """

    def __init__(self, target_port: int) -> None:
        self.cut_after: int | None = None
        self.cut_at = 0.0
        self.frozen = threading.Event()
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.bytes_from_client = 0
        self._target_port = target_port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._target_port))
                except OSError:  # it is down, and so the client's end
                    client.close()
                    continue
                self._sockets.append(server)
                for source, target in ((client, server), (server, client)):
                    arguments = (source, target, source is client)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        # One thread reads and says when a chunk is due, another sends: a delay is not a slow link.
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(_MOST_WAITING)
        sender = threading.Thread(target=self._send, args=(waiting, source, target), daemon=True)
        sender.start()
        free_at = 0.0
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                chunk = self._count(chunk) if from_client else chunk
                took_s = len(chunk) / self.bytes_per_s if self.bytes_per_s else 0.0
                free_at = max(free_at, time.monotonic()) + took_s
                waiting.put((free_at + self.delay_s, chunk))
                if self.cut_after is not None and self.bytes_from_client >= self.cut_after:
                    self.cut_at = time.monotonic()
                    break
        waiting.put((0.0, b""))

    def _send(
        self,
        waiting: "queue.Queue[tuple[float, bytes]]",
        source: socket.socket,
        target: socket.socket,
    ) -> None:
        chunks = iter(waiting.get, (0.0, b""))
        with contextlib.suppress(OSError):
            for due, chunk in chunks:
                time.sleep(max(0.0, due - time.monotonic()))
                while self.frozen.is_set():
                    time.sleep(0.01)
                target.sendall(chunk)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for _ in chunks:  # the reader may wait for room
            pass

    def _count(self, chunk: bytes) -> bytes:
        if self.cut_after is not None:
            chunk = chunk[: max(0, self.cut_after - self.bytes_from_client)]
        self.bytes_from_client += len(chunk)
        return chunk

    def close(self) -> None:
        """Close all ends."""
        self.frozen.clear()
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
