"""The sheet of suspect labels and of pictures to label next: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data import Array
from fastseg_training.suspects.ranking import THUMB_WIDTH, Candidate, Suspect, Thumbs

JPEG_QUALITY = 80  # of thumbnails: some 8 kB each
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
figure { display: inline-block; margin: 0 .5rem .5rem 0; vertical-align: top }
figcaption { color: #666; font-size: 12px }
section { border-top: 1px solid #ddd; padding: .5rem 0; overflow-wrap: anywhere }
.key span { display: inline-block; margin-right: 1rem; white-space: nowrap }
.key i { display: inline-block; width: 1em; height: 1em; margin-right: .3em; vertical-align: -2px }
.note { color: #666 }
"""


def suspects_page(
    title: str,
    notes: Sequence[str],
    classes: Sequence[ClassInfo],
    lists: Sequence[tuple[str, Sequence[tuple[Suspect | Candidate, Thumbs]]]],
) -> str:
    """Return the page.

    Args:
        title: what was looked at.
        notes: lines below it.
        classes: of the network.
        lists: heading and pictures of each list, the first to look at first.
    """
    palette_P3 = np.zeros((256, 3), np.uint8)
    palette_P3[: len(classes)] = [info.color for info in classes]
    palette_P3[IGNORE_INDEX] = 255
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="note">{escape(n)}</p>' for n in notes)]
    parts.append(f'<p class="key">{"".join(_key(info) for info in classes)}</p>')
    for heading, entries in lists:
        parts.append(f"<h2>{escape(heading)}</h2>")
        parts += [_entry(rank, *entry, palette_P3) for rank, entry in enumerate(entries, start=1)]
        parts += [] if entries else ['<p class="note">none</p>']
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _key(info: ClassInfo) -> str:
    red, green, blue = info.color
    return f'<span><i style="background:rgb({red},{green},{blue})"></i>{escape(info.name)}</span>'


def _entry(rank: int, entry: Suspect | Candidate, thumbs: Thumbs, palette_P3: Array) -> str:
    if isinstance(entry, Candidate):
        facts = f"uncertainty {entry.uncertainty:.3f}, novelty {entry.novelty:.3f}"
        files = ""
    else:
        pairs = ", ".join(f"{a} is {b} for the network: {share:.1%}" for a, b, share in entry.pairs)
        facts = f"disagreement {entry.disagreement:.3f}, unlabelled {entry.unlabelled_share:.1%}"
        facts += f"; {pairs}" if pairs else ""
        files = f'<p class="note">{escape(" | ".join(entry.files))}</p>' if entry.files else ""
    pictures = "".join(_figure(*item) for item in _pictures(thumbs, palette_P3))
    return (
        f"<section><p>{rank}. <b>{escape(entry.name)}</b>: {escape(facts)}</p>{files}{pictures}"
        "</section>"
    )


def _pictures(thumbs: Thumbs, palette_P3: Array) -> list[tuple[str, Array]]:
    height, width = thumbs.image_hw3.shape[:2]
    shown = [("picture", thumbs.image_hw3)]
    if thumbs.label_hw is not None:
        shown.append(("label", palette_P3[resize_nearest(thumbs.label_hw, width, height)]))
    shown.append(("network", palette_P3[resize_nearest(thumbs.network_hw, width, height)]))
    if thumbs.doubt_hw is not None:
        doubt_hw = (
            resize_nearest(thumbs.doubt_hw, width, height).astype(np.float32)[..., None] / 255
        )
        grey_hw1 = thumbs.image_hw3.mean(-1, keepdims=True) / 2
        shown.append(
            ("doubt", (grey_hw1 * (1 - doubt_hw) + doubt_hw * (255, 40, 0)).astype(np.uint8))
        )
    return shown


def _figure(caption: str, image_hw3: Array) -> str:
    flags = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    stored = np.ascontiguousarray(image_hw3[..., ::-1])
    data = base64.b64encode(cv2.imencode(".jpg", stored, flags)[1].tobytes()).decode("ascii")
    return (
        f'<figure><img alt="{caption}" width="{THUMB_WIDTH}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
