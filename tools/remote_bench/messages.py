"""The one wire format: what workstation, keeper, agent and worker say to each other.

A message is a line of JSON, `{"event": NAME, ...}`. Where others write too (a login shell, an
engine) each line begins with `@TOKEN `, and all others are noise. Where nobody else writes, on a
program's stdin, raw bytes may follow a message: as many as its "body" says.

It travels to the board with the keeper and with the agent: standard library, Python 3.6 syntax.
"""

import json
from typing import Any, Dict, List, Optional

SHELL_SIGN = "@remote_bench shell"  # a whole line; /bin/sh on the board knows no token yet
_LONGEST = 1 << 20  # bytes of a line or a body: a probe has some 50 kB, an upload's piece 64 kB
_NOISE_KEPT = 2000  # characters of what is not ours, for error messages: a login shell's screen


def encode(event: str, token: str = "", **fields: Any) -> bytes:
    """Return one message in ASCII, which any locale passes on, with any bytes of a path in it."""
    mark = f"@{token} " if token else ""
    return f"{mark}{json.dumps(dict(fields, event=event))}\n".encode("ascii")


class Messages:
    """Fed with bytes, cut anywhere; gives the messages in them.

    SHELL_SIGN becomes {"event": "shell"}, and a "body" the bytes themselves. Everything else (a
    greeting, chatter, bytes that are no UTF-8, lines without an end) is noise: its end is kept for
    error messages and it never raises.
    """

    def __init__(self, token: str = "") -> None:
        self._mark = f"@{token} ".encode("ascii") if token else b""
        self._rest = b""
        self.noise = ""

    def feed(self, chunk: bytes) -> List[Dict[str, Any]]:
        """Return the messages that this chunk completes; each has an "event" that is a text."""
        self._rest += chunk
        found, start, end = [], 0, self._rest.find(b"\n")
        while end >= 0:
            message = self._message(self._rest[start:end])
            after = end + 1
            if message is not None and "body" in message:
                after += message["body"]
                if after > len(self._rest):  # the rest of the body is on its way
                    break
                message["body"] = self._rest[end + 1 : after]
            if message is not None:
                found.append(message)
            start, end = after, self._rest.find(b"\n", after)
        self._rest = self._rest[start:]
        if end < 0 and len(self._rest) > _LONGEST:
            self._hear(self._rest[:_NOISE_KEPT])
            self._rest = b""
        return found

    def _message(self, line: bytes) -> Optional[Dict[str, Any]]:
        if line.endswith(SHELL_SIGN.encode("ascii")):
            return {"event": "shell"}
        start = line.find(self._mark)  # a greeting without a line break may stand before it
        message = self._parse(line[start + len(self._mark) :]) if start >= 0 else None
        if message is None:
            self._hear(line)
        return message

    def _parse(self, content: bytes) -> Optional[Dict[str, Any]]:
        try:
            message = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(message, dict) or not isinstance(message.get("event"), str):
            return None
        body = message.get("body", 0)
        good = isinstance(body, int) and 0 <= body <= _LONGEST and not (body and self._mark)
        return message if good else None

    def _hear(self, noise: bytes) -> None:
        text = noise.decode("utf-8", "replace").strip()
        self.noise = f"{self.noise}\n{text}".strip()[-_NOISE_KEPT:]
