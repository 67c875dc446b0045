"""Takes the events of one run out of whatever comes from a board's stdout."""

import json
from typing import Any

SHELL_SIGN = "@remote_bench shell"  # a whole line; /bin/sh on the board knows no token yet
_LONGEST_LINE = 1 << 20
_NOISE_KEPT = 2000  # characters of what is not ours, for messages


class EventLines:
    """Fed with bytes, cut anywhere; gives the events of lines `@TOKEN {json}`.

    SHELL_SIGN becomes an event "shell", which has no token.
    Everything else (a login shell's greeting, an engine's chatter, bytes that are no UTF-8, lines
    without an end) is noise: its end is kept for error messages and it never raises.
    """

    def __init__(self, token: str) -> None:
        self._prefix = f"@{token} ".encode("ascii")
        self._rest = b""
        self.noise = ""

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """Return the events that this chunk completes; each has an "event" that is a text."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest[:_NOISE_KEPT]], b""
        events = [self._event(line) for line in lines]
        return [event for event in events if event is not None]

    def _event(self, line: bytes) -> dict[str, Any] | None:
        if line.endswith(SHELL_SIGN.encode("ascii")):
            return {"event": "shell"}
        start = line.find(self._prefix)  # a greeting without a line break may stand before it
        event = _parse(line[start + len(self._prefix) :]) if start >= 0 else None
        if event is None:
            text = line.decode("utf-8", "replace").strip()
            self.noise = f"{self.noise}\n{text}".strip()[-_NOISE_KEPT:]
        return event


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
