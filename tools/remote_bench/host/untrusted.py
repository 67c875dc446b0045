"""Texts from a board, made safe for a terminal and for HTML."""

from __future__ import annotations

import html
import unicodedata

_MOST_CHARACTERS = 2000  # a trace of an engine, and no flood
# Control, format (bidirectional overrides), surrogate and private characters can change how the
# rest of a line reads.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")


def plain(text: object) -> str:
    """Return a text in one line without characters that control the terminal."""
    shown = str(text)[:_MOST_CHARACTERS]
    return "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in shown).strip()


def escaped(text: object) -> str:
    """Return a text that HTML shows as it is, whatever it holds."""
    return html.escape(plain(text), quote=True)
