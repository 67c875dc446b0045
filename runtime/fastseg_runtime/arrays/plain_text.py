"""Text from outside: what may stand in a name, and how to show what may not."""

import re

# Controls (a terminal obeys them), half characters (no file takes them), breaks of lines, and marks
# that turn what follows them around. Joiners stay: Persian, Hindi and emoji need them.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNFIT = re.compile(f"[{_CONTROLS}]")
_UNSHOWN = re.compile(f"(?![\n\t])[{_CONTROLS}]")


def is_plain(text: str, longest: int) -> bool:
    """Return whether a text is short enough and free of control characters."""
    return len(text) <= longest and _UNFIT.search(text) is None


def printable(text: str) -> str:
    """Return a text with control characters as \\u001b: still JSON where it was JSON."""
    return _UNSHOWN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
