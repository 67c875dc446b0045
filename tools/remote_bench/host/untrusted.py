"""Texts from a board, made safe for a terminal and for HTML."""

import html

_MOST_CHARACTERS = 2000  # a trace of an engine, and no flood


def plain(text: object) -> str:
    """Return a text in one line without characters that change how the rest of a line reads."""
    shown = str(text)[:_MOST_CHARACTERS]
    return "".join(c if c.isprintable() else " " for c in shown).strip()


def escaped(text: object) -> str:
    """Return a text that HTML shows as it is, whatever it holds."""
    return html.escape(plain(text), quote=True)
